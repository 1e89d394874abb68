// Texts to vectors by Burn in the browser, on its kernels and on ours, held against those of sentence-transformers.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";
import { minilm, near, stored } from "../lib/minilm.mjs";
import { dist, start } from "./setup.mjs";

let world, texts;
before(async () => {
  if (!existsSync(`${dist}/anygpu/burn.js`)) throw new Error(`${dist}: found no entry with Burn, run \`cargo xtask web\` first`);
  const model = await minilm();
  // A handful of different lengths, which Burn's kernels pad: a processor that plays a GPU takes long for each token.
  texts = (await stored()).filter(({ text }, index) => index % 9 === 2 && text.length > 4 && text.length <= 28);
  assert.ok(texts.length >= 3, `${texts.length} texts`);
  world = await start({ folders: { "/minilm/": model } });
  await world.run(async () => Object.assign(globalThis, await import("/anygpu/burn.js")));
});
after(() => world?.stop());

for (const kernels of ["own", "burn"]) {
  test(`a folder by URL, on kernels: ${kernels}`, async () => {
    const found = await world.run(async ({ texts, kernels }) => {
      const [phases, counts] = [new Set(), []];
      const embedder = await BurnEmbedder.load({ folder: "/minilm" }, { kernels, cache: false, onProgress: ({ phase }) => phases.add(phase) });
      const { info, dimensions } = embedder;
      const vectors = await embedder.embed(texts, { onProgress: (progress) => counts.push(progress) });
      const isFloats = vectors.every((vector) => vector instanceof Float32Array);
      const again = await embedder.embed(texts.slice(0, 1));
      const none = await embedder.embed([]);
      const early = await refused(embedder.embed(texts, { signal: AbortSignal.abort() }));
      const wrong = await refused(embedder.embed(["one"], { prompt: "query" }));
      await embedder.dispose();
      const disposed = await refused(embedder.embed(["one"]));
      const plain = (vectors) => vectors.map((vector) => [...vector]);
      return { info, dimensions, phases: [...phases], counts, isFloats, vectors: plain(vectors), again: plain(again), none, early, wrong, disposed };
    }, { texts: texts.map(({ text }) => text), kernels });
    const { dimensions, info } = found;
    assert.equal(dimensions, 384);
    assert.equal(info.kernels, kernels);
    assert.deepEqual(info.model, { dimensions, layers: 6, vocabulary: 30522, maxTokens: 256, pooling: "mean", normalized: true });
    assert.ok(found.phases.includes("download") && found.phases.includes("load"), found.phases.join());
    assert.ok(found.isFloats);
    near(found.vectors, texts, 0.9999);
    near(found.again, texts.slice(0, 1), 0.9999);
    assert.deepEqual(found.counts.at(-1), { done: texts.length, total: texts.length });
    assert.deepEqual(found.none, []);
    assert.deepEqual([found.early.name, found.wrong.name, found.disposed.name], ["Cancelled", "Shape", "Io"]);
    assert.deepEqual(world.problems, []);
  });
}

test("what cannot be loaded is refused by name", async () => {
  const found = await world.run(async () => ({
    folder: await refused(BurnEmbedder.load({ folder: "/nowhere/" }, { cache: false })),
    llama: await refused(BurnEmbedder.load(MODEL, { cache: false })),
    kernels: await refused(BurnEmbedder.load({ folder: "/minilm/" }, { kernels: "cuda" })),
    source: await refused(BurnEmbedder.load({})),
    cancelled: await refused(BurnEmbedder.load({ folder: "/minilm/" }, { cache: false, signal: AbortSignal.abort() })),
  }));
  assert.deepEqual(Object.values(found).map(({ name }) => name), ["Io", "Unsupported", "Shape", "Shape", "Cancelled"]);
  assert.ok(Object.values(found).every(({ isError }) => isError));
  assert.match(found.folder.message, /nowhere\/model\.safetensors: HTTP 404/);
  assert.match(found.llama.message, /found "llama", expected "bert"/);
  assert.match(found.kernels.message, /found "cuda", expected one of \["own","burn"\]/);
  assert.deepEqual(world.problems, []);
});
