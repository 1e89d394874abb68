"""Makes the stored logits: small random llama models built with transformers, their GGUF files and what they answer.

    pip install torch transformers gguf numpy; python make.py

For each case: NAME.gguf, NAME.npy (float32 logits, [tokens, vocabulary]) and an entry in index.json. Weights are rounded
to float16 before the model runs, so the file and the model hold the same numbers. q and k are permuted to neighbouring
pairs, and `rope_freqs.weight` is written, as llama.cpp's convert_hf_to_gguf.py does.
"""

import json
import math
import os

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENS = 18
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}

# name, description, configuration on top of BASE, float type of the matrices
BASE = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "vocab_size": 96, "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
        "rope_parameters": PLAIN}
CASES = [
    ("mha", "one layer, as many key heads as query heads, as in Llama 2 7B", {"num_key_value_heads": 4, "num_hidden_layers": 1}, "f16"),
    ("gqa-tied", "four query heads on two key heads, output tied to the embedding", {"tie_word_embeddings": True}, "f16"),
    ("mqa", "one key head, epsilon 1e-6, rope base 500000", {"num_key_value_heads": 1, "rms_norm_eps": 1e-6,
     "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}, "f16"),
    ("head-24", "heads of 24 elements, 4 of them on a width of 64", {"head_dim": 24}, "f16"),
    ("head-40", "two heads of 40 elements on one key head, width 64", {"head_dim": 40, "num_attention_heads": 2,
     "num_key_value_heads": 1}, "f16"),
    ("rope-llama3", "Llama 3.1's rope scaling: rope_freqs.weight; tied output", {"hidden_size": 32, "head_dim": 32, "num_attention_heads": 2,
     "num_key_value_heads": 1, "tie_word_embeddings": True, "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0,
     "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}, "f16"),
    ("rope-linear", "linear rope scaling by 4", {"hidden_size": 32, "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
     "tie_word_embeddings": True}, "f16"),
    ("rope-yarn", "YaRN by 4 over an original context of 32", {"hidden_size": 32, "head_dim": 32, "num_attention_heads": 2, "num_key_value_heads": 1,
     "tie_word_embeddings": True, "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
     "original_max_position_embeddings": 32}}, "f16"),
    ("bias-f32", "biases on q, k, v and the attention output; float32 matrices", {"hidden_size": 32,
     "head_dim": 8, "attention_bias": True}, "f32"),
]


def permuted(w, heads):
    """Rows of q or k from half pairs (i, i + d/2) to neighbours (2i, 2i + 1)."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def llama3_factors(rope, dim):
    """Divisors of the frequencies, as convert_hf_to_gguf.py computes them."""
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    old = rope["original_max_position_embeddings"]
    out = []
    for i in range(0, dim, 2):
        length = 2 * math.pi * rope["rope_theta"] ** (i / dim)
        if length < old / high:
            out.append(1.0)
        elif length > old / low:
            out.append(rope["factor"])
        else:
            smooth = (old / length - low) / (high - low)
            out.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    assert len(set(out)) >= 3, f"the case must meet all three ranges: {out}"
    return np.array(out, np.float32)


def randomise(model, seed):
    """Weights that keep every part of the model in play; one column in 16 is an outlier."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "norm" in name:
                p.copy_(0.5 + torch.rand(p.shape, generator=generator))
            elif name.endswith("bias"):
                p.copy_(0.3 * torch.randn(p.shape, generator=generator))
            else:
                gain = 1.0 if "embed" in name else 1.4
                w = torch.randn(p.shape, generator=generator) * gain / math.sqrt(p.shape[1])
                w[:, ::16] *= 2.0
                p.copy_(w)
            p.copy_(p.half().float())


def write(path, model, config, rope, kind):
    w = gguf.GGUFWriter(path, "llama")
    w.add_name(os.path.basename(path).removesuffix(".gguf"))
    w.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if kind == "f16" else gguf.LlamaFileType.ALL_F32)
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_block_count(config.num_hidden_layers)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    w.add_head_count_kv(config.num_key_value_heads)
    w.add_key_length(config.head_dim)
    w.add_value_length(config.head_dim)
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    w.add_rope_freq_base(rope["rope_theta"])
    w.add_rope_dimension_count(config.head_dim)
    w.add_vocab_size(config.vocab_size)
    if rope["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])
    elif rope["rope_type"] == "yarn":
        w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        w.add_rope_scaling_factor(rope["factor"])
        w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    elif rope["rope_type"] == "llama3":
        w.add_tensor("rope_freqs.weight", llama3_factors(rope, config.head_dim))
    state = {k: v.detach().numpy().astype(np.float32) for k, v in model.state_dict().items()}
    parts = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
             "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}

    def add(name, value):
        half = kind == "f16" and value.ndim == 2
        w.add_tensor(name, np.ascontiguousarray(value.astype(np.float16) if half else value))

    add("token_embd.weight", state.pop("model.embed_tokens.weight"))
    for layer in range(config.num_hidden_layers):
        for source, name in parts.items():
            for suffix in ("weight", "bias"):
                value = state.pop(f"model.layers.{layer}.{source}.{suffix}", None)
                if value is not None:
                    add(f"blk.{layer}.{name}.{suffix}", permuted(value, heads[name]) if name in heads else value)
    add("output_norm.weight", state.pop("model.norm.weight"))
    output = state.pop("lm_head.weight")
    if not config.tie_word_embeddings:
        add("output.weight", output)
    assert not state, f"tensors left over: {list(state)}"
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    reader = gguf.GGUFReader(path)
    assert all(np.isfinite(t.data.astype(np.float32)).all() for t in reader.tensors)


def main():
    index = []
    for seed, (name, description, changes, kind) in enumerate(CASES):
        settings = {**BASE, **changes}
        config = LlamaConfig(**settings, attn_implementation="eager")
        model = LlamaForCausalLM(config).float().eval()
        randomise(model, 100 + seed)
        tokens = np.random.default_rng(seed).integers(0, config.vocab_size, TOKENS).tolist()
        with torch.no_grad():
            logits = model(torch.tensor([tokens])).logits[0].numpy().astype(np.float32)
        assert logits.shape == (TOKENS, config.vocab_size) and np.isfinite(logits).all()
        path = os.path.join(HERE, name + ".gguf")
        write(path, model, config, settings["rope_parameters"], kind)
        np.save(os.path.join(HERE, name + ".npy"), logits)
        index.append({"file": name + ".gguf", "logits": name + ".npy", "tokens": tokens, "description": description})
        print(f"{name:12} {os.path.getsize(path):7} bytes, logits within {abs(logits).max():.2f}, spread {logits.std():.2f}")
    with open(os.path.join(HERE, "index.json"), "w", encoding="utf-8") as file:
        json.dump(index, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
