// The built site with the real engine and the shipped model, driven as a person would. `cargo xtask web` builds it.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { launch } from "../lib/browser.mjs";
import { serve } from "../lib/server.mjs";
import { PHONE, ready, reply, say, visit } from "./harness.mjs";

const DIST = fileURLToPath(new URL("../../dist", import.meta.url));
const MODEL = "models/anygpu-rust-6m-f16.gguf";
/** A processor that plays the GPU compiles every kernel slowly, and slower where it has other work. */
const SLOW = 480_000;

let here;
before(async () => {
  if (!existsSync(`${DIST}/anygpu/index.js`)) throw new Error(`${DIST} is not built: cargo xtask web`);
  const server = await serve({ "/": DIST });
  const browser = await launch();
  here = { browser, url: server.url, server };
});
after(async () => {
  await here?.browser.close();
  await here?.server.close();
});

/** Greedy, so that a text can be expected. */
async function greedy(page, tokens) {
  await page.fill("#setting-temperature", "0");
  await page.fill("#setting-repetitionPenalty", "1");
  await page.fill("#setting-maxTokens", String(tokens));
}

test("a first chat with the shipped model, a second turn, and again from the cache", async () => {
  await visit(here, {}, async (page) => {
    await ready(page, SLOW);
    await greedy(page, 24);
    await say(page, "What is a slice?");
    const first = await reply(page, SLOW);
    assert.match(first, /[A-Za-z]{3,} [A-Za-z]/, "words");
    assert.match(await page.locator(".foot").innerText(), /\d+ tokens?\s+[\d.,]+ tok\/s\s+first token .*s\s+prompt \d+/);
    await say(page, "Why?");
    await reply(page, SLOW);
    assert.match(await page.locator(".foot").last().innerText(), /prompt (\d+), (\d+) new/, "the second turn reads only what is new");

    await page.click("#tab-model");
    await page.locator(".cached li").waitFor();
    assert.match(await page.locator(".cached").innerText(), /anygpu-rust-6m-f16\.gguf\s+11\.1 MiB/);
    assert.match(await page.locator("#current").innerText(), /F16[\s\S]*2,048 tokens[\s\S]*MiB/);
    await page.locator("#adapter dl").waitFor();

    const before = here.server.requests.filter(({ path, method }) => path.endsWith(MODEL) && method === "GET").reduce((sum, { sentBytes }) => sum + sentBytes, 0);
    await page.reload();
    await page.click("#tab-chat");
    await ready(page, SLOW);
    await say(page, "What is a slice?");
    assert.equal(await reply(page, SLOW), first, "greedy settings are kept, and so is the text");
    const after = here.server.requests.filter(({ path, method }) => path.endsWith(MODEL) && method === "GET").reduce((sum, { sentBytes }) => sum + sentBytes, 0);
    assert.ok(after - before < 1_000_000, `${after - before} bytes of the model came again`);
  });
});

test("a chosen file: planned, loaded, asked; then stopped in the middle", () =>
  visit(here, {}, async (page) => {
    await ready(page, SLOW);
    await page.click("#tab-model");
    await page.setInputFiles("#file", `${DIST}/${MODEL}`);
    await page.locator(".planned .actions").waitFor({ timeout: SLOW });
    assert.match(await page.locator("#plan").innerText(), /5\.\d+ million[\s\S]*Weights\s+11 MiB[\s\S]*Context cache\s+[\d.]+ MiB/);
    await page.fill("#plan-context", "512");
    await page.getByRole("button", { name: "Plan again" }).click();
    await page.locator("#plan-context[value='512']").waitFor({ timeout: SLOW });
    await page.getByRole("button", { name: "Load it" }).click();
    await ready(page, SLOW);
    await greedy(page, 400);
    await say(page, "Tell me about ownership.");
    await page.waitForFunction(() => document.querySelector(".reply .text")?.innerText.length > 20, null, { timeout: SLOW });
    await page.keyboard.press("Escape");
    assert.ok((await reply(page, SLOW)).length > 10);
    assert.match(await page.locator(".foot").innerText(), /stopped/);
    await greedy(page, 4);
    await say(page, "And borrowing?");
    await reply(page, SLOW);
    assert.match(await page.locator(".foot").last().innerText(), /4 tokens/);
  }));

test("a file that is no model leaves the loaded one alone", () =>
  visit(here, {}, async (page) => {
    await ready(page, SLOW);
    await page.click("#tab-model");
    await page.setInputFiles("#file", { name: "notes.gguf", mimeType: "application/octet-stream", buffer: Buffer.from("PK\x03\x04 this is a zip") });
    await page.locator("#plan .problem").waitFor({ timeout: SLOW });
    assert.match(await page.locator("#plan").innerText(), /not a file that can be read/);
    await page.click("#tab-chat");
    await greedy(page, 3);
    await say(page, "Still there?");
    await reply(page, SLOW);
  }));

test("the GPU is lost in the middle of a reply: the page says so and the text goes on", () =>
  visit(here, {}, async (page) => {
    await ready(page, SLOW);
    await greedy(page, 24);
    await say(page, "What is a slice?");
    await page.waitForFunction(() => document.querySelector(".reply .text")?.innerText.length > 0, null, { timeout: SLOW });
    await page.evaluate(async () => {
      const { session } = await import(new URL("page/boot.js", location.href).href);
      await session.engine.request("lose");
    });
    await page.locator(".notice.warn", { hasText: "The GPU was lost" }).waitFor({ timeout: SLOW });
    await page.locator(".notice.good", { hasText: "The GPU is back" }).waitFor({ timeout: SLOW });
    const text = await reply(page, SLOW);
    assert.match(await page.locator(".foot").innerText(), /GPU rebuilt/);
    await page.click("#new-chat");
    await say(page, "What is a slice?");
    assert.equal(await reply(page, SLOW), text, "the same text as without the loss");
  }));

test("benchmark: a row, then cancelled; load alone runs to its report", () =>
  visit(here, {}, async (page) => {
    await ready(page, SLOW);
    await page.click("#tab-benchmark");
    for (const box of await page.locator("#suites input").all()) await box.uncheck();
    await page.locator("#suites input[value=load]").check();
    await page.click("#run-benchmark");
    await page.getByText(/Finished in/).waitFor({ timeout: SLOW });
    assert.match(await page.locator("#benchmark-rows").innerText(), /load/);
    const [download] = await Promise.all([page.waitForEvent("download"), page.click("#save-report")]);
    assert.equal(download.suggestedFilename(), "report.json");
    await page.locator("#suites input[value=prefill]").check();
    await page.click("#run-benchmark");
    await page.waitForFunction(() => document.querySelectorAll("#benchmark-rows tr").length >= 1, null, { timeout: SLOW });
    await page.click("#run-benchmark");
    await page.getByText("Stopping after the case that runs now.").waitFor();
    // The one that runs may have been the last.
    await page.getByText(/Cancelled after|Finished in/).waitFor({ timeout: SLOW });
    await page.click("#tab-chat");
    await greedy(page, 3);
    await say(page, "Still there?");
    await reply(page, SLOW);
  }));

test("check: kernels agree with their references, and what was run so far can be reported", () =>
  visit(here, { device: PHONE, permissions: ["clipboard-read", "clipboard-write"] }, async (page) => {
    await ready(page, SLOW);
    await page.click("#tab-check");
    await page.getByLabel("Baseline").check();
    await page.click("#run-check");
    await page.waitForFunction(() => document.querySelectorAll("#check-rows tr").length >= 30, null, { timeout: SLOW });
    await page.keyboard.press("Escape");
    await page.getByText(/Cancelled after/).waitFor({ timeout: SLOW });
    assert.match(await page.locator("#check-state").innerText(), /: \d+ cases, 0 failed\./);
    await page.click("#copy-check");
    await page.getByRole("button", { name: "Copied" }).waitFor();
    const text = await page.evaluate(() => navigator.clipboard.readText());
    assert.match(text, /Adapter: `.+`[\s\S]*Browser: .*Chrom[\s\S]*Profile: webgpu-baseline[\s\S]*(\d+) of \1 cases pass; the run was not finished/);
  }));
