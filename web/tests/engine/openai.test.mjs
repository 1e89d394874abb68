// The shapes of OpenAI's chat completions.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { greedy, start } from "./setup.mjs";

let world, engine;
before(async () => {
  world = await start();
  engine = await world.page.evaluateHandle(() => Engine.load(MODEL, { cache: false }));
});
after(() => world?.stop());

const [first] = greedy.chat;
const messages = [{ role: "user", content: first.question }];

test("a completion", async () => {
  const found = await engine.evaluate(
    (engine, body) => openai(engine).chat.completions.create(body),
    { messages: [{ role: "user", content: [{ type: "text", text: first.question }] }], temperature: 0, max_tokens: 16, model: "any" },
  );
  assert.match(found.id, /^chatcmpl-/);
  assert.equal(found.object, "chat.completion");
  assert.equal(found.model, "any");
  assert.equal(found.choices.length, 1);
  assert.deepEqual(found.choices[0].message, { role: "assistant", content: first.text, refusal: null });
  assert.equal(found.choices[0].finish_reason, first.finish);
  assert.equal(found.usage.prompt_tokens, first.prompt_tokens);
  assert.equal(found.usage.completion_tokens, first.tokens.length);
  assert.equal(found.usage.total_tokens, first.prompt_tokens + first.tokens.length);
});

test("a stream", async () => {
  const found = await engine.evaluate(async (engine, body) => {
    const chunks = [];
    for await (const chunk of await openai(engine).chat.completions.create(body)) chunks.push(chunk);
    return chunks;
  }, { messages, temperature: 0, max_completion_tokens: 16, stream: true, stream_options: { include_usage: true } });
  assert.ok(found.every(({ object, id }) => object === "chat.completion.chunk" && id === found[0].id));
  assert.deepEqual(found[0].choices[0].delta, { role: "assistant", content: "" });
  const deltas = found.flatMap(({ choices }) => choices).map(({ delta }) => delta.content ?? "");
  assert.equal(deltas.join(""), first.text);
  assert.ok(deltas.filter(Boolean).length > 4, "it comes in pieces");
  assert.deepEqual(found.at(-1).choices, []);
  assert.equal(found.at(-1).usage.completion_tokens, first.tokens.length);
  assert.equal(found.at(-2).choices[0].finish_reason, first.finish);
  assert.ok(found.slice(0, -1).every(({ usage }) => usage === null));
});

test("stop sequences and seeds", async () => {
  const found = await engine.evaluate(async (engine, { messages, word }) => {
    const create = (body) => openai(engine).chat.completions.create({ messages, ...body });
    const text = async (body) => (await create(body)).choices[0].message.content;
    return {
      stopped: await create({ temperature: 0, max_tokens: 16, stop: [word] }),
      seeded: [await text({ seed: 7, max_tokens: 8 }), await text({ seed: 7, max_tokens: 8 }), await text({ seed: 8, max_tokens: 8 })],
    };
  }, { messages, word: first.text.split(" ")[3] });
  const content = found.stopped.choices[0].message.content;
  assert.ok(first.text.startsWith(content) && content.length < first.text.length);
  assert.ok(!content.includes(first.text.split(" ")[3]));
  assert.equal(found.stopped.choices[0].finish_reason, "stop");
  assert.equal(found.seeded[0], found.seeded[1]);
  assert.notEqual(found.seeded[0], found.seeded[2]);
});

test("what the engine does not have is refused by name", async () => {
  for (const [body, name, message] of [
    [{ n: 2 }, "Unsupported", /^n: found 2/],
    [{ tools: [{}] }, "Unsupported", /^tools/],
    [{ response_format: { type: "json_object" } }, "Unsupported", /^response_format/],
    [{ messages: [{ role: "user", content: [{ type: "image_url" }] }] }, "Unsupported", /image_url/],
    [{ messages: [{ role: "robot", content: "x" }] }, "Shape", /robot/],
    [{ messages: [] }, "Shape", /messages/],
    [{ messages: "x" }, "Shape", /messages/],
    [{ temperature: -1 }, "Shape", /temperature/],
  ]) {
    const found = await engine.evaluate((engine, body) => refused(openai(engine).chat.completions.create(body)), { messages, ...body });
    assert.equal(found.name, name, JSON.stringify([body, found]));
    assert.match(found.message, message);
  }
});
