// An engine's life: cancelled, its device lost, disposed, again and again.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { greedy, start } from "./setup.mjs";

let world;
before(async () => (world = await start()));
after(() => world?.stop());

test("a signal ends a generation, and the engine goes on", async () => {
  const found = await world.run(async (raw) => {
    const engine = await Engine.load(MODEL, { cache: false });
    const abort = new AbortController();
    const generation = engine.generate("fn main", { raw: true, temperature: 0, maxTokens: 60, signal: abort.signal });
    let pieces = 0;
    const loop = refused(
      (async () => {
        for await (const piece of generation) if ((pieces += piece.length) > 8) abort.abort();
      })(),
    );
    const results = { loop: await loop, metrics: await refused(generation.metrics), pieces };
    // Before it begins.
    results.early = await refused(written(engine.generate("x", { raw: true, signal: AbortSignal.abort() })));
    // A loop that is left.
    const left = engine.generate("fn main", { raw: true, temperature: 0, maxTokens: 60 });
    for await (const piece of left) {
      void piece;
      break;
    }
    results.left = await left.metrics;
    results.after = await written(engine.generate(raw.prompt, { raw: true, temperature: 0, maxTokens: raw.maxTokens }));
    await engine.dispose();
    results.disposed = await refused(written(engine.generate("x")));
    return results;
  }, greedy.raw);
  assert.deepEqual([found.loop.name, found.metrics.name, found.early.name], ["Cancelled", "Cancelled", "Cancelled"]);
  assert.ok(found.loop.isError);
  assert.equal(found.left.finish, "cancelled");
  assert.ok(found.left.generatedTokens < 60, `${found.left.generatedTokens} tokens after the loop was left`);
  assert.deepEqual(found.after.tokens, greedy.raw.tokens);
  assert.equal(found.disposed.name, "Io");
});

test("a signal ends a load", async () => {
  world.server.fault("/models/anygpu-rust-6m-f16.gguf", { bytesPerSecond: 200_000 });
  const found = await world.run(async () => {
    const abort = new AbortController();
    const load = refused(Engine.load(MODEL, { cache: false, signal: abort.signal }));
    setTimeout(() => abort.abort(), 500);
    return load;
  });
  world.server.fault("/models/anygpu-rust-6m-f16.gguf", null);
  assert.equal(found.name, "Cancelled");
});

test("a device lost in the middle of a text is replaced, and the text goes on", async () => {
  const found = await world.run(async ({ raw, chat }) => {
    const events = [];
    const engine = await Engine.load(MODEL, { cache: false, onEvent: (event) => events.push(event.type) });
    const generation = engine.generate(raw.prompt, { raw: true, temperature: 0, maxTokens: raw.maxTokens });
    let text = "";
    for await (const piece of generation) {
      if (text === "") await engine.request("lose");
      text += piece;
    }
    const first = { text, ...(await generation.metrics) };
    // Lost while nothing runs: the next use finds out.
    await engine.request("lose");
    const [{ question, maxTokens }] = chat;
    const idle = await written(engine.generate([{ role: "user", content: question }], { temperature: 0, maxTokens }));
    const memory = await engine.memory();
    await engine.dispose();
    return { first, idle, events, memory };
  }, greedy);
  assert.deepEqual(found.first.tokens, greedy.raw.tokens);
  assert.equal(found.first.text, greedy.raw.text);
  assert.equal(found.first.rebuilt, 1);
  assert.deepEqual(found.idle.tokens, greedy.chat[0].tokens);
  assert.deepEqual(found.events, ["device-lost", "rebuilt", "device-lost", "rebuilt"]);
  assert.ok(found.memory.currentBytes > 0);
  assert.deepEqual(world.problems, []);
});

test("a device lost whose source is gone ends in one clear error", async () => {
  const engine = await world.page.evaluateHandle(() => Engine.load(MODEL, { cache: false }));
  world.server.fault("/models/anygpu-rust-6m-f16.gguf", { status: 404 });
  const found = await engine.evaluate(async (engine) => {
    await engine.request("lose");
    return { first: await refused(written(engine.generate("x", { maxTokens: 4 }))) };
  });
  assert.equal(found.first.name, "DeviceLost");
  assert.match(found.first.message, /cannot be loaded again/);
  world.server.fault("/models/anygpu-rust-6m-f16.gguf", null);
  const again = await engine.evaluate(async (engine) => {
    const result = await written(engine.generate("x", { maxTokens: 4, temperature: 0 }));
    await engine.dispose();
    return result.generatedTokens;
  });
  assert.equal(again, 4, "a source that is back serves again");
});

test("loads and disposals in a row leave nothing behind", async () => {
  const loads = Number(process.env.ANYGPU_WEB_LOADS ?? 20);
  const found = await world.run(async (loads) => {
    const seen = [];
    const bytes = await (await fetch(MODEL)).blob();
    for (let i = 0; i < loads; i += 1) {
      const engine = await Engine.load(bytes);
      // A load prepares what a text needs; writing one each time would only take a software adapter's time.
      const generatedTokens = i % 10 === 0 ? (await written(engine.generate("fn", { raw: true, temperature: 0, maxTokens: 2 }))).generatedTokens : 2;
      const memory = await engine.memory();
      await engine.dispose();
      seen.push({ generatedTokens, ...memory });
    }
    return seen;
  }, loads);
  assert.equal(found.length, loads);
  for (const [index, { generatedTokens, currentBytes, wasmBytes }] of found.entries()) {
    assert.equal(generatedTokens, 2);
    // Those that write have the plans of it.
    const first = index % 10 === 0 ? found[0] : found[1];
    assert.equal(currentBytes, first.currentBytes, "each load takes the same GPU memory");
    assert.equal(wasmBytes, first.wasmBytes, "and the same heap");
  }
  assert.equal(world.page.workers().length, 0, "every worker has ended");
});

test("one engine's heap and GPU memory do not grow from text to text", async () => {
  const found = await world.run(async () => {
    const engine = await Engine.load(MODEL, { cache: false });
    const seen = [];
    for (let i = 0; i < 8; i += 1) {
      await written(engine.generate([{ role: "user", content: `Question ${i}` }], { temperature: 0, maxTokens: 2 }));
      const { currentBytes, wasmBytes } = await engine.memory();
      seen.push({ currentBytes, wasmBytes });
    }
    await engine.dispose();
    return seen;
  });
  assert.deepEqual(found.at(-1), found[3]);
});
