// The shipped model writes, greedily, what it writes natively, whatever its bytes come from.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { greedy, MODEL_FILE, start } from "./setup.mjs";

let world;
before(async () => (world = await start()));
after(() => world?.stop());

/** Same tokens and text as natively. */
function same(found, expected) {
  assert.deepEqual(found.tokens, expected.tokens);
  assert.equal(found.text, expected.text);
  assert.equal(found.finish, expected.finish);
  assert.equal(found.promptTokens, expected.prompt_tokens);
}

test("a text and a conversation of two turns, by URL", async () => {
  const found = await world.run(async ({ raw, chat }) => {
    const engine = await Engine.load(MODEL, { cache: false });
    const results = { chat: [] };
    const messages = [];
    for (const { question, maxTokens } of chat) {
      messages.push({ role: "user", content: question });
      const turn = await written(engine.generate(messages, { temperature: 0, maxTokens }));
      messages.push({ role: "assistant", content: turn.text });
      results.chat.push(turn);
    }
    results.raw = await written(engine.generate(raw.prompt, { raw: true, temperature: 0, maxTokens: raw.maxTokens }));
    results.info = engine.info;
    await engine.dispose();
    return results;
  }, greedy);
  same(found.raw, greedy.raw);
  for (const [index, turn] of greedy.chat.entries()) {
    same(found.chat[index], turn);
    assert.equal(found.chat[index].prefilledTokens, turn.prefilled, "a later turn computes only what is new");
  }
  assert.equal(found.info.model.dtype, "f16");
  assert.ok(found.info.memory.bytes >= found.info.memory.weightBytes);
  assert.deepEqual(world.problems, []);
});

test("from a File", async () => {
  await world.page.setContent('<input type="file">');
  await world.page.setInputFiles("input", MODEL_FILE);
  const found = await world.run(async (raw) => {
    const file = document.querySelector("input").files[0];
    const engine = await Engine.load(file);
    const result = await written(engine.generate(raw.prompt, { raw: true, temperature: 0, maxTokens: raw.maxTokens }));
    await engine.dispose();
    return result;
  }, greedy.raw);
  same(found, greedy.raw);
});

test("from an ArrayBuffer, on a device clipped to the baseline", async () => {
  const found = await world.run(async (raw) => {
    const buffer = await (await fetch(MODEL)).arrayBuffer();
    const engine = await Engine.load(buffer, { profile: "webgpu-baseline" });
    const result = await written(engine.generate(raw.prompt, { raw: true, temperature: 0, maxTokens: raw.maxTokens }));
    const { features, limits } = engine.info.adapter;
    await engine.dispose();
    return { ...result, features, limits, bytes: buffer.byteLength };
  }, greedy.raw);
  same(found, greedy.raw);
  assert.ok(found.bytes > 0, "the caller keeps the buffer");
  assert.equal(found.features.subgroups, false);
  assert.equal(found.limits.maxBindingBytes, 128 << 20);
  assert.equal(found.limits.maxStorageBuffers, 8);
});

test("the adapter and a plan, before anything is loaded", async () => {
  const { adapter, plan, small } = await world.run(async () => ({
    adapter: await Engine.adapter(),
    plan: await Engine.plan(MODEL, { contextLength: 512 }),
    small: await Engine.plan(MODEL, { contextLength: 1 << 24, profile: "webgpu-baseline" }),
  }));
  assert.notEqual(adapter.name, "");
  assert.equal(adapter.backend, "browser");
  assert.ok(adapter.limits.maxStorageBuffers >= 8);
  assert.equal(plan.model.architecture, "llama");
  assert.equal(plan.contextLength, 512);
  assert.equal(plan.totalBytes, plan.weightBytes + plan.cacheBytes);
  assert.equal(plan.fits, true);
  assert.equal(small.fits, false);
  assert.match(small.reason, /expected at most/);
});
