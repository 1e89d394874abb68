// The benchmark's suites in the browser: the report natively written, and each answer checked.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { start } from "./setup.mjs";

let world;
before(async () => (world = await start()));
after(() => world?.stop());

test("a report with checked answers", async () => {
  const found = await world.run(async () => {
    const engine = await Engine.load(MODEL, { cache: false });
    const rows = [];
    const sizes = { prompts: [16], depths: [0], batches: [2], batchDepth: 4, tokens: 4, repeats: 1 };
    const report = await engine.benchmark({
      ...sizes,
      suites: ["load", "prefill", "decode", "batch", "memory"],
      model: "shipped",
      onRow: (row) => rows.push(row),
    });
    const abort = new AbortController();
    const stopped = refused(engine.benchmark({ ...sizes, signal: abort.signal, onRow: () => abort.abort() }));
    const results = {
      report,
      rows,
      stopped: await stopped,
      unknown: await refused(engine.benchmark({ suites: ["speed"] })),
      after: await written(engine.generate("fn", { raw: true, temperature: 0, maxTokens: 2 })),
    };
    await engine.dispose();
    return results;
  });
  assert.equal(found.report.schema, 1);
  assert.deepEqual(found.rows, found.report.rows);
  assert.deepEqual(found.rows.map(({ suite }) => suite), ["load", "prefill", "decode", "batch", "memory"]);
  for (const row of found.rows) {
    assert.equal(row.check, "ok", JSON.stringify(row));
    assert.equal(row.model, "shipped");
  }
  assert.ok(found.rows[2].tokens_per_second > 0);
  assert.ok(found.report.environment.adapter.name);
  assert.match(found.report.environment.adapter.backend, /browser/);
  assert.equal(found.stopped.name, "Cancelled");
  assert.equal(found.unknown.name, "Unsupported");
  assert.equal(found.after.generatedTokens, 2);
});
