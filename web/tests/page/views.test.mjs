// Models, benchmark, check: with the stand-in engine.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { calls, ready, reply, say, site, visit } from "./harness.mjs";

let here;
before(async () => {
  here = await site();
});
after(() => here?.close());

const row = (suite, more) => ({ engine: "anygpu", suite, model: "m", dtype: "f16", batch: 1, n_prompt: 0, n_gen: 0, n_depth: 0, tokens_per_second: null, p50_ms: null, p95_ms: null, p99_ms: null, peak_memory_bytes: null, bandwidth_share: null, check: "ok", ...more });
const ROWS = [
  row("load", { name: "load", load_ms: 130 }),
  row("prefill", { n_prompt: 128, tokens_per_second: 5000 }),
  row("prefill", { n_prompt: 512, tokens_per_second: 21_000 }),
  row("decode", { n_gen: 128, tokens_per_second: 400, p50_ms: 2.4, p95_ms: 2.9 }),
  row("decode", { n_gen: 128, n_depth: 1024, tokens_per_second: 300, check: "logits differ" }),
  row("batch", { n_gen: 128, batch: 8, tokens_per_second: 900 }),
];

/** Drops a file on the page as a browser does. */
async function drop(page, name) {
  const data = await page.evaluateHandle((name) => {
    const data = new DataTransfer();
    data.items.add(new File(["GGUF"], name));
    return data;
  }, name);
  await page.dispatchEvent("body", "dragover", { dataTransfer: data });
  assert.ok(await page.locator("#dropping").isVisible());
  await page.dispatchEvent("body", "drop", { dataTransfer: data });
}

test("a dropped file: its memory plan first, loaded only when asked", () =>
  visit(here, {}, async (page) => {
    await ready(page);
    await say(page, "Hello");
    await reply(page);
    await drop(page, "llama-2-7b.Q4_0.gguf");
    await page.locator(".planned .actions").waitFor();
    const words = await page.locator("#plan").innerText();
    for (const expected of [/llama-2-7b\.Q4_0\.gguf/, /6\.74 billion/, /Weights\s+3\.56 GiB/, /Context cache\s+2 GiB/, /Together\s+5\.56 GiB/, /Double GPU 9000/]) assert.match(words, expected);
    assert.equal((await calls(page, "load")).length, 1, "nothing loads by itself");
    await page.fill("#plan-context", "2048");
    await page.getByRole("button", { name: "Plan again" }).click();
    await page.getByText("4.56 GiB").waitFor();
    await page.getByRole("button", { name: "Load it" }).click();
    await ready(page);
    assert.deepEqual((await calls(page, "load"))[1], { call: "load", source: "llama-2-7b.Q4_0.gguf", contextLength: 2048 });
    assert.equal((await calls(page, "dispose")).length, 1, "the first model is freed");
    assert.ok(await page.locator("#view-chat").isVisible());
    assert.equal(await page.locator(".turn").count(), 0, "another model begins another conversation");
    assert.match(await page.locator("#welcome").innerText(), /llama-2-7b\.Q4_0\.gguf runs in this tab/);
    await page.click("#tab-model");
    await page.locator("#current").getByRole("button", { name: "Load anygpu-rust 6M" }).click();
    await ready(page);
  }));

test("a chosen file that does not fit, and one that is no model", () =>
  visit(here, { double: { fits: false } }, async (page) => {
    await ready(page);
    await page.click("#tab-model");
    const choose = () => page.setInputFiles("#file", { name: "big.gguf", mimeType: "application/octet-stream", buffer: Buffer.from("GGUF") });
    await choose();
    await page.getByText("the cache of 64 GiB is longer than a buffer of 4 GiB").waitFor();
    await page.getByRole("button", { name: "Not now" }).click();
    assert.ok(await page.locator("#plan").isHidden());
    await page.evaluate(() => (globalThis.double = { fail: { plan: { name: "Format", message: "magic: found 0x04034b50" } } }));
    await choose();
    await page.locator("#plan .problem").waitFor();
    assert.match(await page.locator("#plan").innerText(), /not a file that can be read[\s\S]*0x04034b50/);
    assert.equal(await page.locator("#state-text").innerText(), "Double GPU 9000", "the loaded model stays");
  }));

test("a URL, in the form and in the address", async () => {
  await visit(here, { path: "?model=https://x.example/a/tiny%2520model.gguf" }, async (page) => {
    await page.locator(".planned .actions").waitFor();
    assert.equal((await calls(page, "load")).length, 0);
    assert.match(await page.locator("#plan h3").innerText(), /tiny model\.gguf/);
    await page.getByRole("button", { name: "Load it" }).click();
    await ready(page);
    await page.click("#tab-model");
    await page.fill("#url", "https://y.example/b.gguf");
    await page.press("#url", "Enter");
    await page.locator("#plan h3", { hasText: "b.gguf" }).waitFor();
    assert.equal((await calls(page, "plan"))[1].source, "https://y.example/b.gguf");
  });
});

test("cached models: listed with the room they take, removed", () =>
  visit(
    here,
    {
      double: {
        cached: [
          { key: "a", url: "https://x.example/one.gguf", bytes: 3_800_000_000, complete: true, storedAt: 1_790_000_000_000 },
          { key: "b", url: "https://x.example/two.gguf", bytes: 1_000_000, storedBytes: 4096, complete: false, storedAt: null },
        ],
      },
    },
    async (page) => {
      await ready(page);
      await page.click("#tab-model");
      await page.locator(".cached li").nth(1).waitFor();
      assert.match(await page.locator("#storage").innerText(), /11\.4 MiB of 1\.86 GiB/);
      assert.match(await page.locator(".cached").innerText(), /one\.gguf\s+3\.54 GiB[\s\S]*two\.gguf\s+4 KiB of 977 KiB, not complete/);
      await page.getByRole("button", { name: "Remove two.gguf" }).click();
      await page.waitForFunction(() => document.querySelectorAll(".cached li").length === 1);
      assert.deepEqual(await calls(page, "remove"), [{ call: "remove", key: "b" }]);
      assert.match(await page.locator("#adapter").innerText(), /Double GPU 9000[\s\S]*f16\s+subgroups\s+integer dot products[\s\S]*32 lanes/);
    },
  ));

test("benchmark: rows and charts as they come, the report as a file", () =>
  visit(here, { double: { rows: ROWS, hold: "benchmark" }, acceptDownloads: true }, async (page) => {
    await ready(page);
    await page.click("#tab-benchmark");
    await page.click("#run-benchmark");
    await page.waitForFunction(() => document.querySelectorAll("#benchmark-rows tr").length === 2);
    assert.equal(await page.locator("#run-benchmark").innerText(), "Cancel");
    await page.click("#tab-chat");
    assert.match(await page.locator("#hint").innerText(), /benchmark is running/);
    assert.ok(await page.locator("#send").isDisabled());
    await page.click("#tab-benchmark");
    await page.evaluate(() => (globalThis.doubleGo = true));
    await page.getByText(/Finished in .*: 5 rows, 1 with a wrong answer\./).waitFor();
    assert.deepEqual((await calls(page, "benchmark"))[0].suites, ["prefill", "decode", "load", "memory"]);
    assert.equal(await page.locator("#charts svg").count(), 3);
    assert.match(await page.locator("#charts svg").nth(1).getAttribute("aria-label"), /pp128: 5,000 tokens a second; pp512: 21,000/);
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save-report")]);
    assert.equal(download.suggestedFilename(), "report.json");
    const report = JSON.parse(await readFile(await download.path(), "utf8"));
    assert.deepEqual(report.rows, ROWS.slice(0, 5));
  }));

test("benchmark: cancelled, and an error in the middle", () =>
  visit(here, { double: { rows: ROWS, hold: "benchmark" } }, async (page) => {
    await ready(page);
    await page.click("#tab-benchmark");
    await page.click("#run-benchmark");
    await page.waitForFunction(() => document.querySelectorAll("#benchmark-rows tr").length === 2);
    await page.keyboard.press("Escape");
    await page.getByText("Cancelled after 2 rows.").waitFor();
    assert.ok(await page.locator("#save-report").isDisabled());
    await page.evaluate(() => (globalThis.double = { fail: { benchmark: { name: "OutOfMemory", message: "32 sequences" } } }));
    await page.click("#run-benchmark");
    await page.locator("#benchmark-error .problem").waitFor();
    assert.equal(await page.locator("#state").getAttribute("data-kind"), "good", "the model is still usable");
    for (const box of await page.locator("#suites input").all()) await box.uncheck();
    await page.click("#run-benchmark");
    await page.getByText("Choose at least one suite.").waitFor();
  }));

test("check: every row, failures alone, and the words for a bug report", () =>
  visit(here, { double: { failures: ["matmul q4_0 3x256"], rowMs: 2 }, permissions: ["clipboard-read", "clipboard-write"] }, async (page) => {
    await ready(page);
    await page.click("#tab-check");
    await page.getByLabel("Baseline").check();
    await page.click("#run-check");
    await page.getByText(/Finished after .*: 84 cases, 1 failed\./).waitFor();
    assert.deepEqual(await calls(page, "check"), [{ call: "check", profile: "webgpu-baseline" }]);
    assert.equal(await page.locator("#check-rows tr").count(), 84);
    assert.match(await page.locator("#by-kernel").innerText(), /matmul\s+1 of 12 fail/);
    await page.getByLabel("Only failures").check();
    assert.equal(await page.locator("#check-rows tr:visible").count(), 1);
    await page.click("#copy-check");
    await page.getByRole("button", { name: "Copied" }).waitFor();
    const text = await page.evaluate(() => navigator.clipboard.readText());
    assert.match(text, /Adapter: `Double GPU 9000`/);
    assert.match(text, /Browser: .*Chrom/);
    assert.match(text, /Profile: webgpu-baseline/);
    assert.match(text, /83 of 84 cases pass/);
    assert.match(text, /\| matmul q4_0 3x256 \| 3\.1e-1 \|/);
  }));

test("check: cancelled, and without a GPU", () =>
  visit(here, { double: { rowMs: 100 } }, async (page) => {
    await ready(page);
    await page.click("#tab-check");
    await page.click("#run-check");
    await page.waitForFunction(() => document.querySelectorAll("#check-rows tr").length > 1);
    await page.click("#run-check");
    await page.getByText(/Cancelled after/).waitFor();
    await page.evaluate(() => (globalThis.double = { fail: { check: { name: "Adapter", message: "none left" } } }));
    await page.click("#run-check");
    await page.locator("#check-error .problem").waitFor();
  }));
