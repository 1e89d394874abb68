"""Writes a Llama-shaped GGUF with random weights and a made-up vocabulary, for timing only: random_gguf.py OUT.gguf SIZE

SIZE: tiny, 1b (TinyLlama's shape) or 7b (Llama-2-7B's). Q4_0; scales are kept small so that activations stay finite. Unlike a file without
a vocabulary every engine loads it. Needs the packages numpy and gguf.
"""

import sys

import gguf
import numpy as np

SHAPES = {  # width, feed-forward width, layers, heads, kv heads, vocabulary
    "tiny": (256, 768, 2, 8, 4, 1024),
    "1b": (2048, 5632, 22, 32, 4, 32000),
    "7b": (4096, 11008, 32, 32, 32, 32000),
}
BLOCK, BLOCK_BYTES = 32, 18


def main(path, size_name):
    width, ff, layers, heads, kv_heads, vocab = SHAPES[size_name]
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, size=1 << 26, dtype=np.uint8)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"random {size_name}")
    writer.add_context_length(4096)
    writer.add_embedding_length(width)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(ff)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(vocab)

    special = ["<unk>", "<s>", "</s>"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    # Words that a tokenizer can put together piece by piece: _, _w, _w1, _w12.
    words = ["\u2581", "\u2581w"] + [f"\u2581w{i}" for i in range(vocab - len(special) - len(bytes_) - 2)]
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(special + bytes_ + words)
    writer.add_token_scores([0.0] * (len(special) + len(bytes_)) + [-float(i) for i in range(len(words))])
    types = gguf.TokenType
    writer.add_token_types([types.UNKNOWN, types.CONTROL, types.CONTROL] + [types.BYTE] * 256 + [types.NORMAL] * len(words))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)

    def weight(name, rows, cols):
        count = rows * cols // BLOCK
        data = np.resize(noise, (count, BLOCK_BYTES)).copy()
        data[:, :2] = (rng.random(count, dtype=np.float32) * 0.004 + 0.001).astype(np.float16)[:, None].view(np.uint8)
        data = data.reshape(rows, cols // BLOCK * BLOCK_BYTES)
        writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType.Q4_0)

    def norm(name):
        writer.add_tensor(name, np.ones(width, np.float32))

    weight("token_embd.weight", vocab, width)
    norm("output_norm.weight")
    weight("output.weight", vocab, width)
    kv_width = width * kv_heads // heads
    for i in range(layers):
        for name, rows, cols in (
            ("attn_q", width, width), ("attn_k", kv_width, width), ("attn_v", kv_width, width),
            ("attn_output", width, width), ("ffn_gate", ff, width), ("ffn_up", ff, width), ("ffn_down", width, ff),
        ):
            weight(f"blk.{i}.{name}.weight", rows, cols)
        norm(f"blk.{i}.attn_norm.weight")
        norm(f"blk.{i}.ffn_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[2] not in SHAPES:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
