// The cache of models: what is in it, what a full disk does, and downloads that go on where they ended.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { after, before, beforeEach, test } from "node:test";
import { greedy, MODEL, MODEL_FILE, start } from "./setup.mjs";

let world;
before(async () => (world = await start()));
after(() => world?.stop());
beforeEach(async () => {
  world.server.fault(MODEL, null);
  await world.run(async () => {
    for (const { key } of await cache.list()) await cache.remove(key);
  });
});

/** Loads the model and tells of what happened; writes where `write` says so, which takes a software adapter long. */
const load = (options = {}, write = false) =>
  world.run(
    async ([options, raw, write]) => {
      const [events, phases] = [[], []];
      const onProgress = ({ phase, fromCache }) => phases.push(`${phase}${fromCache ? " from cache" : ""}`);
      const { sha256, ...rest } = options;
      const engine = await Engine.load({ url: MODEL, sha256 }, { ...rest, onProgress, onEvent: (event) => events.push(event) });
      const writing = { raw: true, temperature: 0, maxTokens: 8 };
      const tokens = write ? (await written(engine.generate(raw.prompt, writing))).tokens : null;
      const { weightBytes } = engine.info.memory;
      await engine.dispose();
      return { tokens, weightBytes, events, phases: [...new Set(phases)] };
    },
    [options, greedy.raw, write],
  );
const tokens = greedy.raw.tokens.slice(0, 8);
const sha256 = createHash("sha256").update(await readFile(MODEL_FILE)).digest("hex");
const asked = () => world.server.requests.filter(({ path }) => path === MODEL).length;

test("the second load takes no byte from the network", async () => {
  const first = await load();
  assert.deepEqual(first.events, []);
  const before = asked();
  const second = await load({}, true);
  assert.deepEqual(second.tokens, tokens);
  assert.equal(asked(), before, "no request for the model");
  assert.ok(second.phases.includes("load from cache"), second.phases.join());

  const { list, estimate } = await world.run(async () => ({ list: await cache.list(), estimate: await cache.estimate() }));
  assert.equal(list.length, 1);
  assert.equal(list[0].url, new URL(MODEL, world.server.url).href);
  assert.equal(list[0].complete, true);
  assert.equal(list[0].storedBytes, list[0].bytes);
  assert.ok(estimate.usage >= list[0].bytes && estimate.quota > estimate.usage);

  await world.run((url) => cache.remove(url), MODEL);
  assert.deepEqual(await world.run(() => cache.list()), []);
  await load();
  assert.ok(asked() > before, "what was removed is fetched again");
});

test("shaders that a load needed are begun with the next one's device", async () => {
  const run = () =>
    world.run(async ([url, raw]) => {
      const engine = await Engine.load(url);
      const { tokens } = await written(engine.generate(raw.prompt, { raw: true, temperature: 0, maxTokens: 2 }));
      const found = await engine.request("expected");
      await engine.dispose();
      return { tokens, ...found };
    }, [MODEL, greedy.raw]);
  const first = await run();
  assert.equal(first.begun, 0);
  const second = await run();
  assert.deepEqual(second.tokens, first.tokens);
  assert.ok(second.begun > 5, `${second.begun} shaders`);
  assert.equal(second.used, second.begun, "each of them was needed again");

  await world.run((url) => cache.remove(url), MODEL);
  const third = await run();
  assert.equal(third.begun, 0, "they go with the model");
});

test("no cache where none is wanted", async () => {
  await load({ cache: false });
  assert.deepEqual(await world.run(() => cache.list()), []);
});

test("two engines at a time: one of them keeps the file, both load", async () => {
  const found = await world.run(async () => {
    const events = [];
    const load = () => Engine.load(MODEL, { onEvent: ({ type }) => events.push(type) });
    const engines = await Promise.all([load(), load()]);
    const loaded = engines.map((engine) => engine.info.memory.weightBytes);
    await Promise.all(engines.map((engine) => engine.dispose()));
    return { loaded, events, list: await cache.list() };
  });
  assert.equal(found.loaded[0], found.loaded[1]);
  assert.ok(found.events.every((type) => type === "cache-failed"), found.events.join());
  assert.equal(found.list.length, 1);
  assert.equal(found.list[0].complete, true);
});

test("a download that was given up goes on where it ended", async () => {
  // Slow enough for some segments to be there when the load is cancelled.
  world.server.fault(MODEL, { bytesPerSecond: 4_000_000 });
  const first = await world.run(async () => {
    const abort = new AbortController();
    const onProgress = ({ phase, loadedBytes }) => phase === "download" && loadedBytes > 4 << 20 && setTimeout(() => abort.abort(), 1200);
    const result = await refused(Engine.load(MODEL, { signal: abort.signal, onProgress }));
    await new Promise((resolve) => setTimeout(resolve, 200));
    return { result, list: await cache.list() };
  });
  world.server.fault(MODEL, null);
  // A machine fast enough to be done before it is stopped leaves nothing to go on with.
  if (first.result.name === "Cancelled") {
    assert.equal(first.list.length, 1);
    assert.equal(first.list[0].complete, false);
  }
  const stored = first.list[0].storedBytes;
  assert.ok(stored > 0, "some of it is there");
  const before = world.server.requests.length;
  const resumed = await load({}, true);
  assert.deepEqual(resumed.tokens, tokens, "the parts are put together in their places");
  const sent = world.server.requests.slice(before).reduce((sum, { path, sentBytes }) => sum + (path === MODEL ? sentBytes : 0), 0);
  // The request that finds the length asks for the first segment, whether or not it is there.
  assert.ok(sent <= first.list[0].bytes - stored + (4 << 20), `${sent} bytes were sent, ${stored} were there`);
  assert.equal((await world.run(() => cache.list()))[0].complete, true);
});

test("a full disk is an event, and the load goes on", async () => {
  const client = await world.page.context().newCDPSession(world.page);
  const origin = new URL(world.server.url).origin;
  const quota = (quotaSize) => client.send("Storage.overrideQuotaForOrigin", { origin, quotaSize });
  await quota(1 << 20);
  const none = await load();
  assert.ok(none.weightBytes > 0);
  assert.deepEqual(none.events.map(({ type }) => type), ["cache-failed"]);
  assert.match(none.events[0].message, /storage is full/);
  assert.deepEqual(await world.run(() => cache.list()), []);
  await client.send("Storage.overrideQuotaForOrigin", { origin });

  // It was thought to fit and then does not: the third write fails, as a browser's does where the disk is full.
  await world.run(() => Engine.adapter());
  // One of the workers will load; those of engines before may still be listed, and do not answer any more.
  const broken = world.page.workers().map((worker) =>
    worker.evaluate(() => {
      const { write } = FileSystemSyncAccessHandle.prototype;
      let writes = 0;
      FileSystemSyncAccessHandle.prototype.write = function (bytes, options) {
        if (bytes.byteLength > 1 << 20 && (writes += 1) >= 3) throw new DOMException("no space left", "QuotaExceededError");
        return write.call(this, bytes, options);
      };
      return true;
    }).catch(() => false),
  );
  const late = new Promise((resolve) => setTimeout(resolve, 5000, false));
  const answers = await Promise.all(broken.map((answer) => Promise.race([answer, late])));
  assert.ok(answers.some((answer) => answer), "a worker is there to load");
  const middle = await load({ sha256 });
  assert.deepEqual(middle.events, [{ type: "cache-failed", message: "no space left" }]);
  assert.deepEqual(await world.run(() => cache.list()), [], "what was written is given back");
});
