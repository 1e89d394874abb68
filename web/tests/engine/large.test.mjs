// A model that is larger than the heap may grow: its weights pass through it in pieces.

import assert from "node:assert/strict";
import { mkdtemp, open, rm, truncate } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { start } from "./setup.mjs";

const MIB = 1 << 20;
const Q8_0 = { code: 8, block: 32, bytes: 34 };
const F32 = { code: 0, block: 1, bytes: 4 };
const F16 = { code: 1, block: 1, bytes: 2 };

/** GGUF version 3: metadata of numbers and strings, then tensors `[name, type, rows?, cols]` whose data is zeros. */
function header(metadata, tensors) {
  const parts = [];
  const u32 = (value) => parts.push(Buffer.from(new Uint32Array([value]).buffer));
  const u64 = (value) => parts.push(Buffer.from(new BigUint64Array([BigInt(value)]).buffer));
  const text = (value) => (u64(Buffer.byteLength(value)), parts.push(Buffer.from(value)));
  parts.push(Buffer.from("GGUF"));
  u32(3);
  u64(tensors.length);
  u64(Object.keys(metadata).length);
  for (const [key, value] of Object.entries(metadata)) {
    text(key);
    if (typeof value === "string") u32(8), text(value);
    else if (Number.isInteger(value)) u32(4), u32(value);
    else u32(6), parts.push(Buffer.from(new Float32Array([value]).buffer));
  }
  let offset = 0;
  for (const [name, type, ...shape] of tensors) {
    text(name);
    u32(shape.length);
    for (const size of [...shape].reverse()) u64(size);
    u32(type.code);
    u64(offset);
    const elements = shape.reduce((product, size) => product * size, 1);
    offset += Math.ceil(((elements / type.block) * type.bytes) / 32) * 32;
  }
  const bytes = Buffer.concat(parts);
  const start = Math.ceil(bytes.length / 32) * 32;
  return { bytes, total: start + offset };
}

/** A llama of zeros: as many layers as make about `bytes` in Q8_0. */
async function write(path, { width, ff, layers }) {
  const tensors = [["token_embd.weight", F16, 256, width], ["output_norm.weight", F32, width]];
  for (let i = 0; i < layers; i += 1) {
    const name = (part) => `blk.${i}.${part}.weight`;
    for (const part of ["attn_q", "attn_k", "attn_v", "attn_output"]) tensors.push([name(part), Q8_0, width, width]);
    for (const part of ["ffn_gate", "ffn_up"]) tensors.push([name(part), Q8_0, ff, width]);
    tensors.push([name("ffn_down"), Q8_0, width, ff], [name("attn_norm"), F32, width], [name("ffn_norm"), F32, width]);
  }
  const { bytes, total } = header({
    "general.architecture": "llama",
    "general.name": "zeros",
    "llama.context_length": 256,
    "llama.embedding_length": width,
    "llama.block_count": layers,
    "llama.feed_forward_length": ff,
    "llama.attention.head_count": width / 128,
    "llama.attention.layer_norm_rms_epsilon": 0.00001,
    "tokenizer.ggml.model": "no_vocab",
  }, tensors);
  const file = await open(path, "w");
  await file.write(bytes);
  await file.close();
  // The rest is a hole, which reads as zeros and takes no disk.
  await truncate(path, total);
  return total;
}

let world, folder, bytes;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "anygpu-large-"));
  bytes = await write(join(folder, "large.gguf"), { width: 2048, ff: 8192, layers: 9 });
  await write(join(folder, "huge.gguf"), { width: 8192, ff: 28_672, layers: 80 });
  world = await start({ folders: { "/files/": folder } });
});
after(async () => {
  await world?.stop();
  await rm(folder, { recursive: true });
});

test("600 MB load with a heap under 150 MB", async () => {
  assert.ok(bytes > 600 * 1e6, `${bytes} bytes`);
  const found = await world.run(async () => {
    const engine = await Engine.load("/files/large.gguf", { cache: false });
    // A software adapter would write a token of it in minutes.
    const memory = await engine.memory();
    await engine.dispose();
    return { memory };
  });
  assert.ok(found.memory.currentBytes > 600 * 1e6);
  assert.ok(found.memory.wasmBytes < 150 * MIB, `the heap is ${found.memory.wasmBytes} bytes`);
});

test("70 GB are planned from their header", async () => {
  const before = world.server.requests.length;
  const plan = await world.run(() => Engine.plan("/files/huge.gguf", { contextLength: 256 }));
  assert.ok(plan.weightBytes > 60e9, `${plan.weightBytes} bytes`);
  assert.equal(plan.fits, true, "its parts do, one by one; a browser does not say how much memory there is");
  const sent = world.server.requests.slice(before).reduce((sum, { path, sentBytes }) => sum + (path === "/files/huge.gguf" ? sentBytes : 0), 0);
  assert.ok(sent < 16 * MIB, `${sent} bytes were sent`);
});
