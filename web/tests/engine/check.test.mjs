// Every kernel against its reference in this browser, and every shader through its compiler.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { start } from "./setup.mjs";

let world;
before(async () => (world = await start()));
after(() => world?.stop());

for (const profile of [undefined, "webgpu-baseline"]) {
  test(`kernels, ${profile ?? "all that the adapter has"}`, async () => {
    const found = await world.run(async (profile) => {
      const rows = [];
      const result = await check({ profile, onRow: (row) => rows.push(row.name) });
      return { ...result, told: rows };
    }, profile);
    assert.deepEqual(found.rows.filter(({ failure }) => failure).map(({ name, failure }) => `${name}: ${failure}`), []);
    assert.ok(found.rows.length > 100, `${found.rows.length} cases`);
    assert.equal(found.passed, found.rows.length);
    assert.equal(found.failed, 0);
    assert.deepEqual(found.told, found.rows.map(({ name }) => name), "each row is told as it comes");
    assert.ok(found.rows.every(({ nmse }) => nmse !== null && nmse < 1e-2));
    assert.equal(found.adapter.features.subgroups, found.adapter.features.subgroups && !profile);
    assert.deepEqual(world.problems, []);
  });
}

test("a check can be stopped, filtered, and names the profile that is not there", async () => {
  const found = await world.run(async () => {
    const abort = new AbortController();
    return {
      stopped: await refused(check({ signal: abort.signal, onRow: () => abort.abort() })),
      filtered: (await check({ filter: "copy" })).rows.map(({ kernel }) => kernel),
      unknown: await refused(check({ profile: "toaster" })),
    };
  });
  assert.equal(found.stopped.name, "Cancelled");
  assert.ok(found.filtered.length > 0 && found.filtered.every((kernel) => kernel === "copy"));
  assert.equal(found.unknown.name, "Unsupported");
  assert.match(found.unknown.message, /toaster/);
});

test("the browser's compiler takes every shader that it may be given", async () => {
  const engine = await world.page.evaluateHandle(() => Engine.load(MODEL, { cache: false }));
  const found = await engine.evaluate(async (engine) => {
    const results = await engine.request("compileSources");
    await engine.dispose();
    return results;
  });
  assert.ok(found.length > 50, `${found.length} sources`);
  assert.deepEqual(found.filter(({ errors }) => errors.length > 0), []);
});
