"""Writes a Llama GGUF file as an ONNX decoder that transformers.js loads: export_onnx.py MODEL.gguf FOLDER DTYPE

DTYPE: fp32, fp16, q4 or q4f16, in transformers.js' words: what it computes in, and whether matrices keep 4 bits. A 4-bit
file takes its blocks from Q4_0 as they are (`MatMulNBits` with blocks of 32 says the same thing); other weights are
rounded to Q4_0 first. The graph is the one that onnxruntime's own model builder makes for WebGPU: fused operators for
normalisation, rotary embedding with grouped-query attention, and 4-bit products. The last position's logits alone
leave it, so that a prefill pays for one row of the vocabulary, as other engines do.

Needs the packages numpy, onnx and gguf.
"""

import json
import os
import sys

import gguf
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FILES = {"fp32": "model", "fp16": "model_fp16", "q4": "model_q4", "q4f16": "model_q4f16"}
BLOCK = 32
# A protocol buffer holds less than 2 GiB; what is larger lies in a file beside it.
LARGEST_IN_GRAPH = 1 << 10


class Graph:
    """Nodes and weights of a graph under construction; the weights go to a file as they come."""

    def __init__(self, folder, stem, compute):
        self.nodes, self.initializers = [], []
        self.compute = compute
        self.element = TensorProto.FLOAT16 if compute == np.float16 else TensorProto.FLOAT
        self.data_name = stem + ".onnx_data"
        self.data = open(os.path.join(folder, self.data_name), "wb")

    def node(self, op, inputs, outputs, domain="", **attributes):
        outputs = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(op, inputs, outputs, name="/" + outputs[0], domain=domain, **attributes))
        return outputs[0]

    def weight(self, name, values):
        values = np.ascontiguousarray(values)
        if values.nbytes < LARGEST_IN_GRAPH:
            self.initializers.append(numpy_helper.from_array(values, name))
            return name
        tensor = TensorProto(name=name, data_type=helper.np_dtype_to_tensor_dtype(values.dtype), dims=values.shape)
        tensor.data_location = TensorProto.EXTERNAL
        self.data.write(b"\0" * (-self.data.tell() % 4096))
        for key, value in (("location", self.data_name), ("offset", self.data.tell()), ("length", values.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        self.data.write(values.data)
        self.initializers.append(tensor)
        return name

    def product(self, x, name, tensor, rows=None):
        """x[.., K] times tensor[N, K] transposed. `rows` reorders the N rows."""
        out = name + "/out"
        n, k = int(tensor.shape[1]), int(tensor.shape[0])
        if not self.four_bits or k % BLOCK:
            w = floats(tensor)
            w = w if rows is None else w[rows]
            return self.node("MatMul", [x, self.weight(name + ".weight", w.T.astype(self.compute))], out)
        nibbles, scales = q4_0(tensor)
        if rows is not None:
            nibbles, scales = nibbles[rows], scales[rows]
        inputs = [x, self.weight(name + ".quant", nibbles), self.weight(name + ".scales", scales.astype(self.compute))]
        return self.node("MatMulNBits", inputs, out, "com.microsoft", K=k, N=n, bits=4, block_size=BLOCK,
                         accuracy_level=0)


def floats(tensor):
    return gguf.dequantize(tensor.data, tensor.tensor_type).reshape(int(tensor.shape[1]), int(tensor.shape[0]))


def q4_0(tensor):
    """[N, blocks, 16] bytes, two values each, and [N, blocks] scales. MatMulNBits takes 8 off each value, as Q4_0 does."""
    n, k = int(tensor.shape[1]), int(tensor.shape[0])
    data = tensor.data
    if tensor.tensor_type != gguf.GGMLQuantizationType.Q4_0:
        data = gguf.quantize(floats(tensor), gguf.GGMLQuantizationType.Q4_0)
    blocks = np.asarray(data).reshape(n, k // BLOCK, 18)
    scales = np.ascontiguousarray(blocks[:, :, :2]).view(np.float16)[:, :, 0]
    packed = blocks[:, :, 2:]
    # Q4_0 keeps value i beside value i + 16, MatMulNBits value 2 i beside 2 i + 1.
    values = np.concatenate([packed & 15, packed >> 4], axis=2)
    return (values[:, :, 0::2] | (values[:, :, 1::2] << 4)).astype(np.uint8), scales


def halves(heads, size):
    """GGUF keeps the two halves of a rotary pair side by side; ONNX's operator wants all first halves, then all second."""
    order = np.arange(size).reshape(size // 2, 2).T.reshape(-1)
    return (np.arange(heads)[:, None] * size + order).reshape(-1)


def export(path, folder, dtype):
    reader = gguf.GGUFReader(path)
    tensors = {tensor.name: tensor for tensor in reader.tensors}

    def value(key, default=None):
        field = reader.get_field(key)
        if field is None and default is None:
            raise SystemExit(f"{path}: no {key}")
        return default if field is None else field.contents()

    if value("general.architecture") != "llama":
        raise SystemExit(f"{path}: architecture {value('general.architecture')}, expected llama")
    width, layers = value("llama.embedding_length"), value("llama.block_count")
    heads = value("llama.attention.head_count")
    kv_heads = value("llama.attention.head_count_kv", heads)
    size = value("llama.attention.key_length", width // heads)
    context = value("llama.context_length")
    epsilon = value("llama.attention.layer_norm_rms_epsilon")
    theta = value("llama.rope.freq_base", 10000.0)
    if value("llama.rope.dimension_count", size) != size:
        raise SystemExit(f"{path}: rotates a part of each head, expected all of it")
    vocabulary = int(tensors["token_embd.weight"].shape[1])
    known = {"token_embd.weight", "output_norm.weight", "output.weight", "rope_freqs.weight"}
    if unknown := [name for name in tensors if not name.startswith("blk.") and name not in known or "bias" in name]:
        raise SystemExit(f"{path}: tensors that this export does not know: {', '.join(unknown)}")

    os.makedirs(os.path.join(folder, "onnx"), exist_ok=True)
    compute = np.float16 if dtype in ("fp16", "q4f16") else np.float32
    g = Graph(os.path.join(folder, "onnx"), FILES[dtype], compute)
    g.four_bits = dtype in ("q4", "q4f16")

    # Lengths, from the mask that grows with the cache.
    g.weight("one", np.array([1], np.int64))
    g.weight("one_axis", np.array(1, np.int64))
    total = g.node("Cast", [g.node("ReduceSum", ["attention_mask", "one"], "lengths", keepdims=0)], "lengths32",
                   to=TensorProto.INT32)
    seqlens = g.node("Sub", [total, g.weight("one32", np.array(1, np.int32))], "seqlens_k")
    shape = g.node("Gather", [g.node("Shape", ["attention_mask"], "mask_shape"), "one_axis"], "total64", axis=0)
    total_length = g.node("Cast", [shape], "total_sequence_length", to=TensorProto.INT32)

    frequencies = 1.0 / theta ** (np.arange(0, size, 2, dtype=np.float64) / size)
    if "rope_freqs.weight" in tensors:
        frequencies = frequencies / np.asarray(tensors["rope_freqs.weight"].data, np.float64)
    angles = np.outer(np.arange(context, dtype=np.float64), frequencies)
    cos = g.weight("cos_cache", np.cos(angles).astype(compute))
    sin = g.weight("sin_cache", np.sin(angles).astype(compute))

    def norm(name, x, skip, last=False):
        """Normalises x + skip; returns that and the sum."""
        w = g.weight(name + ".weight", np.asarray(tensors[name + ".weight"].data).astype(compute))
        if skip is None:
            return g.node("SimplifiedLayerNormalization", [x, w], name + "/out", axis=-1, epsilon=epsilon, stash_type=1), x
        outputs = [name + "/out"] if last else [name + "/out", "", "", name + "/sum"]
        g.node("SkipSimplifiedLayerNormalization", [x, skip, w], outputs, "com.microsoft", epsilon=epsilon)
        return outputs[0], outputs[-1]

    embedding = floats(tensors["token_embd.weight"]).astype(compute)
    x = g.node("Gather", [g.weight("embed_tokens", embedding), "input_ids"], "embedded", axis=0)
    caches_in, caches_out, skip = [], [], None
    cache_shape = ["batch_size", kv_heads, "past_sequence_length", size]
    present_shape = ["batch_size", kv_heads, "total_sequence_length", size]
    for i in range(layers):
        p = f"blk.{i}."
        normed, x = norm(p + "attn_norm", x, skip)
        q = g.product(normed, p + "attn_q", tensors[p + "attn_q.weight"], halves(heads, size))
        k = g.product(normed, p + "attn_k", tensors[p + "attn_k.weight"], halves(kv_heads, size))
        v = g.product(normed, p + "attn_v", tensors[p + "attn_v.weight"])
        past = [f"past_key_values.{i}.{part}" for part in ("key", "value")]
        present = [f"present.{i}.{part}" for part in ("key", "value")]
        attended = g.node("GroupQueryAttention", [q, k, v, *past, seqlens, total_length, cos, sin],
                          [p + "attn/out", *present], "com.microsoft", num_heads=heads, kv_num_heads=kv_heads,
                          scale=float(size) ** -0.5, do_rotary=1, rotary_interleaved=0)
        caches_in += [helper.make_tensor_value_info(name, g.element, cache_shape) for name in past]
        caches_out += [helper.make_tensor_value_info(name, g.element, present_shape) for name in present]
        skip = g.product(attended, p + "attn_output", tensors[p + "attn_output.weight"])
        normed, x = norm(p + "ffn_norm", x, skip)
        gate = g.product(normed, p + "ffn_gate", tensors[p + "ffn_gate.weight"])
        up = g.product(normed, p + "ffn_up", tensors[p + "ffn_up.weight"])
        silu = g.node("Mul", [gate, g.node("Sigmoid", [gate], p + "ffn/sigmoid")], p + "ffn/silu")
        skip = g.product(g.node("Mul", [silu, up], p + "ffn/product"), p + "ffn_down", tensors[p + "ffn_down.weight"])
    normed, _ = norm("output_norm", x, skip, last=True)
    g.weight("last", np.array([-1], np.int64))
    g.weight("end", np.array([np.iinfo(np.int64).max], np.int64))
    last = g.node("Slice", [normed, "last", "end", "one"], "last_position")
    output = tensors.get("output.weight", tensors["token_embd.weight"])
    logits = g.product(last, "lm_head", output)
    if compute == np.float16:
        g.node("Cast", [logits], "logits", to=TensorProto.FLOAT)
    else:
        g.node("Identity", [logits], "logits")

    tokens = ["batch_size", "sequence_length"]
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, tokens),
              helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch_size", 1, vocabulary])]
    graph = helper.make_graph(g.nodes, "llama", inputs + caches_in, outputs + caches_out, g.initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="anygpu export_onnx.py")
    g.data.close()
    onnx.save(model, os.path.join(folder, "onnx", FILES[dtype] + ".onnx"))

    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": width,
        "intermediate_size": value("llama.feed_forward_length"), "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": size,
        "max_position_embeddings": context, "rms_norm_eps": epsilon, "rope_theta": theta, "vocab_size": vocabulary,
        "bos_token_id": value("tokenizer.ggml.bos_token_id", 0), "eos_token_id": value("tokenizer.ggml.eos_token_id", 0),
        "tie_word_embeddings": "output.weight" not in tensors,
        "transformers.js_config": {"use_external_data_format": True,
                                   "kv_cache_dtype": {"fp16": "float16", "q4f16": "float16"}},
    }
    for name, text in (("config.json", config), ("generation_config.json", {"do_sample": False})):
        with open(os.path.join(folder, name), "w") as file:
            json.dump(text, file, indent=2)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[3] not in FILES:
        raise SystemExit(__doc__)
    export(*sys.argv[1:])
