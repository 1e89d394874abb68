// Texts to vectors with a real encoder, held against those of sentence-transformers.

import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { minilm, near, stored, writeGguf } from "../lib/minilm.mjs";
import { start } from "./setup.mjs";

const GGUF = "minilm-f32.gguf";

let world, folder, texts, few;
before(async () => {
  const model = await minilm();
  folder = await mkdtemp(join(tmpdir(), "anygpu-embed-"));
  await writeGguf(model, join(folder, GGUF));
  // Some of the 200, of many languages: a processor that plays a GPU takes a fifth of a second for a token.
  const all = await stored();
  texts = all.filter(({ text }, index) => index % 16 === 1 && text.length <= 60);
  few = all.filter(({ text }, index) => index % 9 === 2 && text.length > 4 && text.length <= 28);
  assert.ok(texts.length >= 6 && few.length >= 3, `${texts.length} and ${few.length} texts`);
  world = await start({ folders: { "/minilm/": model, "/files/": folder } });
});
after(async () => {
  await world?.stop();
  await rm(folder, { recursive: true });
});

test("a folder by URL; its device lost, disposed", async () => {
  const found = await world.run(async (texts) => {
    const [events, phases, counts] = [[], new Set(), []];
    const embedder = await Embedder.load(
      { folder: "/minilm" },
      { cache: false, onProgress: ({ phase }) => phases.add(phase), onEvent: ({ type }) => events.push(type) },
    );
    const plain = (vectors) => vectors.map((vector) => [...vector]);
    const results = { info: embedder.info, dimensions: embedder.dimensions, phases: [...phases] };
    const vectors = await embedder.embed(texts, { onProgress: (progress) => counts.push(progress) });
    results.isFloats = vectors.every((vector) => vector instanceof Float32Array);
    results.vectors = plain(vectors);
    results.none = await embedder.embed([]);
    const [start, ...rest] = texts[1];
    results.prefixed = plain(await embedder.embed([rest.join("")], { prefix: start }));
    results.early = await refused(embedder.embed(texts, { signal: AbortSignal.abort() }));

    await embedder.request("lose");
    results.rebuilt = plain(await embedder.embed(texts.slice(0, 1)));
    results.memory = await embedder.memory();
    results.wrong = {
      text: await refused(embedder.embed("one")),
      prompt: await refused(embedder.embed(["one"], { prompt: "query" })),
    };
    await embedder.dispose();
    results.disposed = await refused(embedder.embed(["one"]));
    return { ...results, counts, events };
  }, texts.map(({ text }) => text));
  const { dimensions, info } = found;
  assert.equal(dimensions, 384);
  assert.deepEqual({ ...info.model, layers: 6 }, { dtype: "f32", dimensions, layers: 6, vocabulary: 30522, maxTokens: 256, pooling: "mean", normalized: true });
  assert.deepEqual(info.prompts, {});
  assert.ok(info.memory.weightBytes > 4 * 21e6 && info.memory.bytes >= info.memory.weightBytes);
  assert.ok(found.phases.includes("download") && found.phases.includes("load"), found.phases.join());
  assert.ok(found.isFloats);
  near(found.vectors, texts, 0.9999);
  assert.deepEqual(found.counts.at(-1), { done: texts.length, total: texts.length });
  assert.deepEqual(found.none, []);
  near(found.prefixed, [texts[1]], 0.9999);
  assert.equal(found.early.name, "Cancelled");
  near(found.rebuilt, texts.slice(0, 1), 0.9999);
  assert.deepEqual(found.events, ["device-lost", "rebuilt"]);
  assert.ok(found.memory.peakBytes >= found.memory.currentBytes && found.memory.currentBytes > 4 * 21e6);
  assert.deepEqual([found.wrong.text.name, found.wrong.prompt.name, found.disposed.name], ["Shape", "Shape", "Io"]);
  assert.match(found.wrong.prompt.message, /prompt "query": not found/);
  assert.deepEqual(world.problems, []);
});

test("a GGUF file, its matrices as f16; cancelled", async () => {
  await world.page.setContent('<input type="file">');
  await world.page.setInputFiles("input", join(folder, GGUF));
  const found = await world.run(async (texts) => {
    const embedder = await Embedder.load(document.querySelector("input").files[0], { dtype: "f16", maxTokens: 32, batchTokens: 32 });
    const vectors = (await embedder.embed(texts)).map((vector) => [...vector]);
    // Six batches, of which three are submitted ahead.
    const abort = new AbortController();
    let done = 0;
    const onProgress = (progress) => {
      done = progress.done;
      abort.abort();
    };
    const cancelled = await refused(embedder.embed(Array(48).fill("a cat"), { signal: abort.signal, onProgress }));
    const [after] = (await embedder.embed(texts.slice(0, 1))).map((vector) => [...vector]);
    const { model, memory } = embedder.info;
    await embedder.dispose();
    return { vectors, model, memory, cancelled, done, after };
  }, few.map(({ text }) => text));
  near(found.vectors, few, 0.999);
  assert.deepEqual([found.model.dtype, found.model.maxTokens], ["f16", 32]);
  assert.equal(found.cancelled.name, "Cancelled");
  assert.ok(found.done > 0 && found.done < 48, `${found.done} of 48 texts were done`);
  near([found.after], few.slice(0, 1), 0.999);
  assert.ok(found.memory.weightBytes < 3 * 21e6, `${found.memory.weightBytes} bytes`);
});

test("an ArrayBuffer as q8_0, on a device clipped to the baseline", async () => {
  const found = await world.run(async (texts) => {
    const buffer = await (await fetch("/files/minilm-f32.gguf")).arrayBuffer();
    const embedder = await Embedder.load(buffer, { dtype: "q8_0", profile: "webgpu-baseline" });
    const vectors = await embedder.embed(texts);
    await embedder.dispose();
    return vectors.map((vector) => [...vector]);
  }, few.map(({ text }) => text));
  near(found, few, 0.999);
});

test("what is no encoder is refused by name", async () => {
  world.server.fault("/minilm/tokenizer.json", { status: 404 });
  const found = await world.run(async () => ({
    file: await refused(Embedder.load({ folder: "/minilm/" }, { cache: false })),
    folder: await refused(Embedder.load({ folder: "/nowhere/" }, { cache: false })),
    llama: await refused(Embedder.load(MODEL, { cache: false })),
    pooling: await refused(Embedder.load("/files/minilm-f32.gguf", { cache: false, pooling: "max" })),
    tokens: await refused(Embedder.load("/files/minilm-f32.gguf", { cache: false, maxTokens: 600 })),
    source: await refused(Embedder.load({})),
  }));
  world.server.fault("/minilm/tokenizer.json", null);
  const name = ({ name }) => name;
  assert.deepEqual(Object.values(found).map(name), ["Io", "Io", "Unsupported", "Shape", "Shape", "Shape"]);
  assert.match(found.file.message, /tokenizer\.json: the server answered 404/);
  assert.match(found.llama.message, /found "llama", expected "bert"/);
  assert.match(found.tokens.message, /600 tokens of a text: expected 3 to 512/);
});
