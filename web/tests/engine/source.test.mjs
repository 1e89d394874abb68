// Where bytes come from when all does not go well: breaks, refusals, wrong files, no ranges.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { greedy, MODEL, MODEL_FILE, start } from "./setup.mjs";

let world, folder;
const bytes = await readFile(MODEL_FILE);
const sha256 = createHash("sha256").update(bytes).digest("hex");

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "anygpu-source-"));
  await writeFile(join(folder, "empty.gguf"), "");
  await writeFile(join(folder, "page.gguf"), "<!doctype html><title>404</title>");
  await writeFile(join(folder, "cut.gguf"), bytes.subarray(0, bytes.length - 1000));
  const lying = Buffer.from(bytes);
  // More tensors than the file has bytes for.
  lying.writeBigUInt64LE(1n << 60n, 8);
  await writeFile(join(folder, "lying.gguf"), lying);
  world = await start({ folders: { "/files/": folder } });
});
after(async () => {
  await world?.stop();
  await rm(folder, { recursive: true });
});
beforeEach(() => world.server.fault(MODEL, null));

/**
 * Loads from a source, and writes where `write` says so: what was read is held against a hash in any case, and a
 * software adapter takes many seconds to write.
 */
const load = (source, write = false) =>
  world.run(
    async ([source, raw, write]) => {
      const events = [];
      try {
        const engine = await Engine.load(source, { cache: false, onProgress: (progress) => events.push(progress) });
        const { layers } = engine.info.model;
        const options = { raw: true, temperature: 0, maxTokens: 8 };
        const tokens = write ? (await written(engine.generate(raw.prompt, options))).tokens : null;
        await engine.dispose();
        return { name: "loaded", layers, tokens, events };
      } catch ({ name, message }) {
        return { name, message, events };
      }
    },
    [source, greedy.raw, write],
  );
const whole = { url: MODEL, sha256 };

test("connections that break are resumed where they broke", async () => {
  world.server.fault(MODEL, { times: 5, breakAfter: 300_000 });
  const before = world.server.requests.length;
  const found = await load({ url: MODEL, bytes: bytes.length, sha256 }, true);
  assert.deepEqual(found.tokens, greedy.raw.tokens.slice(0, 8));
  const sent = world.server.requests.slice(before).reduce((sum, { path, sentBytes }) => sum + (path === MODEL ? sentBytes : 0), 0);
  // What is lost is what was on its way when the connection was cut.
  assert.ok(sent < bytes.length + 5 * 131_072, `${sent} bytes were sent for ${bytes.length}`);
  const progress = found.events.filter(({ phase }) => phase === "download");
  assert.ok(progress.length > 0);
  assert.equal(progress.at(-1).loadedBytes, bytes.length);
  assert.equal(progress.at(-1).totalBytes, bytes.length);
});

test("a server that is busy is asked again", async () => {
  world.server.fault(MODEL, { times: 3, status: 503 });
  assert.equal((await load(whole)).name, "loaded");
});

test("a server that stays down is given up", async () => {
  world.server.fault(MODEL, { status: 503 });
  const found = await load(MODEL);
  assert.equal(found.name, "Io");
  assert.match(found.message, /HTTP 503.*\(\d+ attempts\)/);
});

test("what is not there is not asked for again", async () => {
  const before = world.server.requests.length;
  const found = await load("/models/nothing.gguf");
  assert.equal(found.name, "Io");
  assert.match(found.message, /HTTP 404/);
  assert.equal(world.server.requests.slice(before).filter(({ path }) => path === "/models/nothing.gguf").length, 1);
});

test("a server without ranges, whole and breaking", async () => {
  world.server.fault(MODEL, { noRanges: true });
  assert.equal((await load(whole)).name, "loaded");
  world.server.fault(MODEL, { times: 2, noRanges: true, breakAfter: 5_000_000 });
  assert.equal((await load(whole)).name, "loaded");
});

test("wrong lengths and hashes", async () => {
  const short = await load({ url: MODEL, bytes: bytes.length - 1 });
  assert.equal(short.name, "Io");
  assert.match(short.message, new RegExp(`found ${bytes.length} bytes, expected ${bytes.length - 1}`));
  const wrong = await load({ url: MODEL, sha256: "0".repeat(64) });
  assert.equal(wrong.name, "Format");
  assert.match(wrong.message, new RegExp(`SHA-256 is ${sha256}, expected 0{64}`));
  assert.equal((await load({ url: MODEL, sha256: "12" })).name, "Shape");
  assert.equal((await load(42)).name, "Shape");
});

test("hostile files", async () => {
  for (const [name, kind, message] of [
    ["empty", "Format", /the file is empty/],
    ["page", "Format", /looks like a web page/],
    ["cut", "Format", /token_embd|tensor|bytes/],
    ["lying", "Format", /tensor_count/],
  ]) {
    const found = await load(`/files/${name}.gguf`);
    assert.equal(found.name, kind, `${name}: ${found.message}`);
    assert.match(found.message, message);
  }
  const blob = await world.run(() => refused(Engine.load(new Blob(["GGUF"]))));
  assert.equal(blob.name, "Format");
});
