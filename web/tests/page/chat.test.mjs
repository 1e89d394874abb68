// The conversation, with the stand-in engine.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { PHONE, calls, ready, reply, say, site, visit } from "./harness.mjs";

let here;
before(async () => {
  here = await site();
});
after(() => here?.close());

test("a first chat, and a second turn that sends the whole conversation", () =>
  visit(here, { double: { reply: "A slice is **borrowed**." } }, async (page) => {
    await ready(page);
    await say(page, "What is a slice?");
    assert.equal(await reply(page), "A slice is borrowed.");
    assert.equal(await page.locator(".reply strong").innerText(), "borrowed");
    assert.match(await page.locator(".foot").innerText(), /6 tokens\s+[\d.,]+ tok\/s\s+first token .* ms\s+prompt 14/);
    await say(page, "And then?");
    await reply(page);
    const [, second] = await calls(page, "generate");
    assert.deepEqual(second.messages.map(({ role }) => role), ["user", "assistant", "user"]);
    assert.equal(second.messages[1].content, "A slice is **borrowed**.");
    assert.match(await page.locator(".foot").last().innerText(), /prompt 42, 14 new/);
    await page.click("#new-chat");
    assert.equal(await page.locator(".turn").count(), 0);
    assert.ok(await page.locator("#welcome").isVisible());
    await say(page, "Anew");
    await reply(page);
    assert.equal((await calls(page, "generate"))[2].messages.length, 1);
  }));

test("what the model writes never becomes HTML, and links go to http only", () =>
  visit(
    here,
    { double: { reply: "<img src=x onerror=alert(1)> [a](javascript:alert(1)) [b](https://b.example/) <script>alert(1)</script>\n\n```html\n<b>x</b>\n```" } },
    async (page) => {
      await ready(page);
      await say(page, "<b>me too</b>");
      const text = await reply(page);
      assert.match(text, /<img src=x onerror=alert\(1\)> \[a\]\(javascript:alert\(1\)\) b <script>/);
      assert.equal(await page.locator(".turn img, .turn script, .turn b").count(), 0);
      assert.deepEqual(await page.locator(".turn a").evaluateAll((all) => all.map((a) => [a.href, a.rel])), [["https://b.example/", "noopener noreferrer nofollow"]]);
      assert.equal(await page.locator(".mine .text").innerText(), "<b>me too</b>");
    },
  ));

test("a question asked while the model loads is answered when it is there", () =>
  visit(here, { double: { hold: "load" } }, async (page) => {
    await say(page, "Already?");
    assert.match(await page.locator(".foot").innerText(), /Waiting for the model/);
    await page.evaluate(() => (globalThis.doubleGo = true));
    assert.match(await reply(page), /^A slice/);
  }));

test("?ask= asks at once and marks the time of the first token", () =>
  visit(here, { path: "?ask=What%20is%20a%20slice%3F" }, async (page) => {
    await reply(page);
    const marks = await page.evaluate(() => performance.getEntriesByType("mark").map(({ name }) => name));
    assert.deepEqual(marks.filter((name) => name.startsWith("anygpu:")), ["anygpu:load", "anygpu:ready", "anygpu:first-token"]);
  }));

for (const how of ["the button", "Escape"]) {
  test(`stop with ${how}: the text so far stays and is part of the conversation`, () =>
    visit(here, { double: { tokenMs: 40, reply: "word ".repeat(200) } }, async (page) => {
      await ready(page);
      await say(page, "Go on");
      await page.waitForFunction(() => document.querySelector(".reply .text")?.innerText.length > 20);
      if (how === "Escape") await page.keyboard.press("Escape");
      else await page.click("#send");
      const text = await reply(page);
      assert.ok(text.length > 20 && text.length < 900, text);
      assert.match(await page.locator(".foot").innerText(), /stopped/);
      await say(page, "More");
      await page.waitForFunction(() => globalThis.doubleCalls.filter(({ call }) => call === "generate").length === 2);
      const [, second] = await calls(page, "generate");
      assert.equal(second.messages[1].role, "assistant");
      await page.keyboard.press("Escape");
      await reply(page);
    }));
}

test("settings reach the engine, are kept, and refuse what is out of bounds", () =>
  visit(here, {}, async (page) => {
    await ready(page);
    await page.fill("#setting-temperature", "0");
    await page.fill("#setting-seed", "42");
    await page.fill("#setting-maxTokens", "7");
    await page.fill("#setting-system", "Be brief.");
    await page.fill("#setting-topP", "1.5");
    assert.equal(await page.getAttribute("#setting-topP", "aria-invalid"), "true");
    assert.equal(await page.locator("#setting-topP-hint").innerText(), "0.01 to 1");
    await say(page, "Hello");
    await reply(page);
    const [{ messages, options }] = await calls(page, "generate");
    assert.deepEqual(messages[0], { role: "system", content: "Be brief." });
    assert.deepEqual(
      { ...options },
      { temperature: 0, topK: 40, topP: 0.95, minP: 0.05, repetitionPenalty: 1.1, maxTokens: 7, seed: 42 },
    );
    assert.match(await page.locator(".foot").innerText(), /cut at the longest reply/);
    await page.reload();
    await ready(page);
    assert.equal(await page.inputValue("#setting-seed"), "42");
    assert.equal(await page.inputValue("#setting-topP"), "0.95");
    await page.getByRole("button", { name: "Back to the defaults" }).click();
    assert.equal(await page.inputValue("#setting-temperature"), "0.7");
  }));

test("another context length loads the same model again and keeps the conversation", () =>
  visit(here, {}, async (page) => {
    await ready(page);
    await say(page, "Hello");
    await reply(page);
    await page.fill("#setting-contextLength", "1024");
    await page.getByRole("button", { name: "Load again with it" }).click();
    await page.waitForFunction(() => globalThis.doubleCalls.filter(({ call }) => call === "load").length === 2);
    await ready(page);
    assert.equal((await calls(page, "load"))[1].contextLength, 1024);
    assert.equal((await calls(page, "dispose")).length, 1);
    assert.equal(await page.locator(".turn").count(), 2);
  }));

test("a model without a chat template continues the text", () =>
  visit(here, { double: { model: { hasChatTemplate: false } } }, async (page) => {
    await ready(page);
    assert.match(await page.locator("#hint").innerText(), /continues what you write/);
    await say(page, "Once upon a time");
    await reply(page);
    const [{ messages, options }] = await calls(page, "generate");
    assert.deepEqual([messages, options.raw], ["Once upon a time", true]);
  }));

test("a lost GPU that comes back: said, and the text goes on", () =>
  visit(
    here,
    {
      double: {
        tokenMs: 15,
        events: [
          { afterPieces: 3, event: { type: "device-lost", message: "driver reset" } },
          { afterPieces: 8, event: { type: "rebuilt" } },
        ],
      },
    },
    async (page) => {
      await ready(page);
      await say(page, "Hello");
      await page.locator(".notice.warn", { hasText: "The GPU was lost" }).waitFor();
      await page.locator(".notice.good", { hasText: "The GPU is back" }).waitFor();
      assert.match(await reply(page), /points to\.$/);
      assert.equal(await page.locator(".notice.warn").count(), 0, "old news");
      await page.locator(".notice.good button").click();
      assert.equal(await page.locator(".notice").count(), 0);
    },
  ));

test("a lost GPU that stays lost: the text so far, what happened, and a way back", () =>
  visit(here, { double: { breaks: { afterPieces: 4, name: "DeviceLost", message: "the file is gone" } } }, async (page) => {
    await ready(page);
    await say(page, "Hello");
    await page.locator(".reply .problem").waitFor();
    assert.match(await page.locator(".reply .problem").innerText(), /The GPU went away[\s\S]*the file is gone/);
    assert.match(await page.locator(".foot").innerText(), /broken off/);
    assert.equal(await page.locator("#state-text").innerText(), "No model");
    assert.ok(await page.locator("#send").isDisabled());
    await page.evaluate(() => (globalThis.double = {}));
    await page.locator(".reply").getByRole("button", { name: "Try again" }).click();
    assert.match(await reply(page), /points to\.$/);
    assert.equal((await calls(page, "load")).length, 2, "the model is loaded again");
    assert.equal((await calls(page, "generate"))[1].messages.length, 1, "the half answer is not asked about");
    assert.equal(await page.locator(".turn").count(), 2);
  }));

test("out of memory while loading: what it means and how to go on", () =>
  visit(here, { double: { fail: { load: { name: "OutOfMemory", message: "3.56 GiB for blk.0" } } } }, async (page) => {
    await page.locator("#welcome .problem").waitFor();
    assert.match(await page.locator("#welcome .problem").innerText(), /no memory left[\s\S]*3\.56 GiB[\s\S]*shorter context/);
    await page.evaluate(() => (globalThis.double = {}));
    await page.locator("#welcome").getByRole("button", { name: "Try again" }).click();
    await ready(page);
  }));

test("a full disk is said and nothing stops", () =>
  visit(here, { double: { events: [{ afterPieces: 1, event: { type: "cache-failed", message: "quota of 1 GB" } }] } }, async (page) => {
    await ready(page);
    await say(page, "Hello");
    await page.locator(".notice", { hasText: "could not be kept" }).waitFor();
    assert.match(await reply(page), /points to\.$/);
  }));

test("loading: progress with speed and time left, cancelled, and begun again", () =>
  visit(here, { double: { loadMs: 30_000, steps: 300 } }, async (page) => {
    const bar = page.locator("#loading progress");
    await page.waitForFunction(() => document.querySelector("#loading progress")?.value > 0.005);
    assert.equal(await bar.getAttribute("aria-label"), "Loading anygpu-rust 6M");
    assert.match(await page.locator("#loading").innerText(), /Downloading · \d+ % · .* of 11\.1 MiB[\s\S]*\/s · .* left/);
    await page.locator("#loading").getByRole("button", { name: "Cancel" }).click();
    await page.getByText("No model is loaded.").first().waitFor();
    await page.evaluate(() => (globalThis.double = {}));
    await page.locator("#loading").getByRole("button", { name: /Load the model/ }).click();
    await ready(page);
  }));

test("without WebGPU: no download, and what to do", () =>
  visit(here, { noGpu: true }, async (page) => {
    await page.locator("#loading .missing").waitFor();
    assert.match(await page.locator("#loading .missing").innerText(), /This browser has no WebGPU[\s\S]*Chrome and Edge[\s\S]*Firefox[\s\S]*Safari/);
    assert.equal(await page.evaluate(() => globalThis.doubleCalls.length), 0);
    for (const tab of ["model", "benchmark", "check"]) {
      await page.click(`#tab-${tab}`);
      assert.match(await page.locator(`#view-${tab}`).innerText(), /no WebGPU/);
    }
  }));

test("WebGPU without an adapter", () =>
  visit(here, { double: { fail: { load: { name: "Adapter", message: "no adapter" } } } }, async (page) => {
    await page.locator("#loading .missing").waitFor();
    assert.match(await page.locator("#loading").innerText(), /found no GPU[\s\S]*no adapter/);
  }));

test("a screen reader hears sentences, not tokens", () =>
  visit(here, { double: { tokenMs: 60, reply: "One sentence stands here. And a second one follows it. The third ends the reply." } }, async (page) => {
    await ready(page);
    await page.evaluate(() => {
      globalThis.heard = [];
      new MutationObserver((changes) => {
        for (const { addedNodes } of changes) for (const node of addedNodes) globalThis.heard.push(node.textContent);
      }).observe(document.querySelector("#spoken"), { childList: true, subtree: true });
    });
    await say(page, "Hello");
    await reply(page);
    const heard = await page.evaluate(() => globalThis.heard);
    assert.equal(heard.at(-1), "End of the reply.");
    assert.equal(heard.slice(0, -1).join(" "), "One sentence stands here. And a second one follows it. The third ends the reply.");
    assert.ok(heard.length <= 3, JSON.stringify(heard));
    assert.equal(await page.getAttribute("#log", "aria-live"), "off");
  }));

test("a long reply is followed to its end unless the reader scrolls away", () =>
  visit(here, { device: PHONE, double: { tokenMs: 3, reply: "A line of the reply.\n\n".repeat(60) } }, async (page) => {
    await ready(page);
    await say(page, "Hello");
    await page.waitForFunction(() => document.querySelectorAll(".reply p").length > 30);
    const below = () => page.evaluate(() => {
      const log = document.querySelector("#log");
      return log.scrollHeight - log.scrollTop - log.clientHeight;
    });
    assert.ok((await below()) < 60);
    await page.evaluate(() => (document.querySelector("#log").scrollTop = 0));
    await page.locator("#latest").waitFor();
    await reply(page);
    assert.equal(await page.evaluate(() => document.querySelector("#log").scrollTop), 0);
    await page.click("#latest");
    assert.ok((await below()) < 60);
  }));

test("a tab that is hidden in mid-reply, and gets no more frames, goes on writing", () =>
  visit(here, { double: { tokenMs: 30, reply: "A line of the reply.\n\n".repeat(40) } }, async (page) => {
    // Headless browsers hide no tab: what a page sees of it.
    await page.addInitScript(() => {
      const frame = globalThis.requestAnimationFrame;
      globalThis.requestAnimationFrame = (f) => frame((time) => document.hidden || f(time));
      globalThis.hide = () => {
        Object.defineProperty(document, "hidden", { value: true, configurable: true });
        Object.defineProperty(document, "visibilityState", { value: "hidden", configurable: true });
        document.dispatchEvent(new Event("visibilitychange"));
      };
    });
    await page.reload();
    await ready(page);
    await say(page, "Hello");
    await page.waitForFunction(() => document.querySelectorAll(".reply p").length > 2);
    // Behind a piece, for which a frame was asked and now never comes.
    await page.evaluate(() => {
      const ask = globalThis.requestAnimationFrame;
      return new Promise((resolve) => {
        globalThis.requestAnimationFrame = (f) => {
          const asked = ask(f);
          globalThis.requestAnimationFrame = ask;
          globalThis.hide();
          resolve();
          return asked;
        };
      });
    });
    const seen = await page.locator(".reply p").count();
    assert.ok(seen < 30, `${seen} lines before the tab was hidden`);
    // Not by frames, of which there are none. It goes on writing, and to the end.
    const more = (seen) => document.querySelector(".reply.writing") && document.querySelectorAll(".reply p").length > seen + 1;
    await page.waitForFunction(more, seen, { polling: 50, timeout: 10_000 });
    await page.waitForFunction(() => document.querySelector(".reply:not(.writing)"), null, { polling: 100, timeout: 10_000 });
    assert.equal(await page.locator(".reply .text p").count(), 40);
  }));
