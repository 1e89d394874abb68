"""Writes the trained weights and the tokenizer as one GGUF file.

    python make_gguf.py --weights model.npz --data DIR --out anygpu-rust-6m-f16.gguf

DIR is what `prepare.py` wrote. The training already rotates neighbouring pairs, as GGUF's llama does, so q and k go in as
they are. The file is read back and compared at the end.
"""

import argparse
import json
import os
import sys

import gguf
import numpy as np

HEAD, EPS, ROPE_BASE = 64, 1e-5, 10000.0
LIMIT = 12_000_000


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--weights", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--context", type=int, default=2048)
    args = p.parse_args()
    weights = dict(np.load(args.weights))
    with open(os.path.join(args.data, "meta.json"), encoding="utf-8") as file:
        meta = json.load(file)
    with open(os.path.join(args.data, "tokenizer.json"), encoding="utf-8") as file:
        bpe = json.load(file)["model"]

    vocabulary, width = weights["token_embd.weight"].shape
    layers = 1 + max(int(n.split(".")[1]) for n in weights if n.startswith("blk."))
    heads = weights["blk.0.attn_q.weight"].shape[0] // HEAD
    kv_heads = weights["blk.0.attn_k.weight"].shape[0] // HEAD
    assert vocabulary == meta["vocabulary"] == len(bpe["vocab"])
    assert len(weights) == 2 + 9 * layers, sorted(weights)

    w = gguf.GGUFWriter(args.out, "llama")
    w.add_name("anygpu-rust 6M")
    w.add_description("A very small llama trained on the Rust documentation, for tests and benchmarks of anygpu.")
    w.add_license("MIT OR Apache-2.0")
    w.add_languages(["en"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    w.add_context_length(args.context)
    w.add_embedding_length(width)
    w.add_block_count(layers)
    w.add_feed_forward_length(weights["blk.0.ffn_gate.weight"].shape[0])
    w.add_head_count(heads)
    w.add_head_count_kv(kv_heads)
    w.add_key_length(HEAD)
    w.add_value_length(HEAD)
    w.add_layer_norm_rms_eps(EPS)
    w.add_rope_freq_base(ROPE_BASE)
    w.add_rope_dimension_count(HEAD)
    w.add_vocab_size(vocabulary)

    tokens = [""] * vocabulary
    for token, n in bpe["vocab"].items():
        tokens[n] = token
    specials = set(meta["specials"])
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(meta["pre"])
    w.add_token_list(tokens)
    w.add_token_types([gguf.TokenType.CONTROL if t in specials else gguf.TokenType.NORMAL for t in tokens])
    w.add_token_merges([" ".join(m) if isinstance(m, list) else m for m in bpe["merges"]])
    w.add_bos_token_id(tokens.index("<|begin|>"))
    w.add_eos_token_id(tokens.index("<|endoftext|>"))
    w.add_eot_token_id(tokens.index("<|end|>"))
    w.add_pad_token_id(tokens.index("<|pad|>"))
    w.add_add_bos_token(True)
    w.add_add_eos_token(False)
    w.add_chat_template(meta["chat_template"])

    # Norms are float32 and matrices float16; the order is that of the forward pass.
    names = ["token_embd.weight"]
    for n in range(layers):
        names += [f"blk.{n}.{part}.weight" for part in (
            "attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down")]
    names.append("output_norm.weight")
    for name in names:
        assert weights[name].dtype == (np.float32 if weights[name].ndim == 1 else np.float16), name
        assert np.isfinite(weights[name]).all(), name
        w.add_tensor(name, weights[name])
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()

    read = {t.name: t for t in gguf.GGUFReader(args.out).tensors}
    assert list(read) == names
    for name in names:
        assert np.array_equal(read[name].data, weights[name]), name
    size = os.path.getsize(args.out)
    print(f"{args.out}: {size} bytes, {len(names)} tensors, {vocabulary} tokens, {layers} layers")
    if size > LIMIT:
        sys.exit(f"the file has {size} bytes, more than {LIMIT}")


if __name__ == "__main__":
    main()
