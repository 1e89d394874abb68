// The page by keyboard alone, for a screen reader, on a phone, dark and light.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { DESKTOP, PHONE, ready, reply, say, site, visit } from "./harness.mjs";

const AXE = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

let here;
before(async () => {
  here = await site();
});
after(() => here?.close());

/** What axe finds, best practices included, as lines to read. */
async function violations(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return violations.flatMap(({ id, help, nodes }) => nodes.map(({ target, failureSummary }) => `${id}: ${help}: ${target} ${failureSummary}`));
}

const RICH = "# Title\n\nText with `code`, [a link](https://x.example/) and **weight**.\n\n### Deep\n\n- a\n  - b\n\n> quote\n\n```rust\nfn main() { println!(\"a line that is longer than any phone is wide, so that it scrolls\"); }\n```\n\n1. x";
const ROWS = ["prefill", "decode"].map((suite) => ({ suite, engine: "anygpu", n_prompt: 512, n_gen: 0, n_depth: 0, batch: 1, tokens_per_second: 400, p50_ms: 2, check: suite === "decode" ? "differs" : "ok" }));

/** Every state of the page that has looks of its own. */
const STATES = {
  welcome: [{}, ready],
  loading: [{ double: { loadMs: 60_000, steps: 100 } }, (page) => page.locator("#loading progress[value]").waitFor()],
  chat: [
    { double: { reply: RICH } },
    async (page) => {
      await ready(page);
      await say(page, "Hello");
      await reply(page);
    },
  ],
  writing: [
    { double: { reply: RICH.repeat(9), tokenMs: 50 } },
    async (page) => {
      await ready(page);
      await say(page, "Hello");
      await page.locator(".writing .text p").first().waitFor();
    },
  ],
  settings: [
    {},
    async (page) => {
      await ready(page);
      if (await page.locator("#settings").isHidden()) await page.click("#show-settings");
      await page.fill("#setting-topP", "7");
    },
  ],
  model: [
    { double: { cached: [{ key: "a", url: "https://x.example/a.gguf", bytes: 5, complete: true }] } },
    async (page) => {
      await ready(page);
      await page.click("#tab-model");
      await page.locator(".cached li").waitFor();
      await page.locator("#adapter dl").waitFor();
    },
  ],
  plan: [{ path: "?model=https://x.example/a.gguf" }, (page) => page.locator(".planned .actions").waitFor()],
  "plan that does not fit": [{ path: "?model=https://x.example/a.gguf", double: { fits: false } }, (page) => page.locator(".planned .actions").waitFor()],
  benchmark: [
    { double: { rows: ROWS } },
    async (page) => {
      await ready(page);
      await page.click("#tab-benchmark");
      await page.click("#run-benchmark");
      await page.getByText("Finished in").waitFor();
    },
  ],
  check: [
    { double: { failures: ["matmul q4_0 3x256"] } },
    async (page) => {
      await ready(page);
      await page.click("#tab-check");
      await page.click("#run-check");
      await page.getByText("Finished after").waitFor();
    },
  ],
  "a broken reply": [
    { double: { breaks: { afterPieces: 4, name: "OutOfMemory", message: "x" }, events: [{ afterPieces: 2, event: { type: "device-lost", message: "y" } }, { afterPieces: 3, event: { type: "rebuilt" } }] } },
    async (page) => {
      await ready(page);
      await say(page, "Hello");
      await page.locator(".reply .problem").waitFor();
    },
  ],
  "no WebGPU": [{ noGpu: true }, (page) => page.locator("#loading .missing").waitFor()],
  "failed load": [{ double: { fail: { load: { name: "Io", message: "x" } } } }, (page) => page.locator("#welcome .problem").waitFor()],
};

// Colours do not depend on the device, nor the outline on the colours.
for (const [name, device, colorScheme] of [["phone, dark", PHONE, "dark"], ["desktop, light", DESKTOP, "light"]]) {
  test(`axe finds nothing, nothing scrolls sideways: ${name}`, async () => {
    const found = [];
    for (const [state, [more, act]] of Object.entries(STATES)) {
      await visit(here, { device, colorScheme, ...more }, async (page) => {
        await act(page);
        found.push(...(await violations(page)).map((line) => `${state}: ${line}`));
        const [width, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        if (width > window) found.push(`${state}: ${width} px wide in a window of ${window}`);
      });
    }
    assert.deepEqual(found, []);
  });
}

test("axe finds what is wrong here", () =>
  visit(here, {}, async (page) => {
    await ready(page);
    await page.evaluate(() => {
      document.querySelector("#welcome-text").style.color = "#ccc";
      document.querySelector("#welcome-title").outerHTML = "<h5>x</h5>";
      document.querySelector("label[for=prompt]").remove();
      document.querySelector("#prompt").placeholder = "";
    });
    const ids = new Set((await violations(page)).map((line) => line.split(":")[0]));
    assert.deepEqual([...ids].sort(), ["color-contrast", "heading-order", "label", "label-title-only"]);
  }));

test("on a phone everything that is pressed is at least 24 px high and inside the window", () =>
  visit(here, { device: PHONE, double: { rows: ROWS } }, async (page) => {
    await ready(page);
    await say(page, "Hello");
    await reply(page);
    for (const tab of ["chat", "model", "benchmark", "check"]) {
      await page.click(`#tab-${tab}`);
      const wrong = await page.evaluate(() =>
        [...document.querySelectorAll("button, input:not(.unseen), textarea, summary, label:has(input)")]
          .filter((element) => element.checkVisibility() && !element.closest("label:has(input) input, label input"))
          .map((element) => [element.id || element.textContent.trim(), element.getBoundingClientRect()])
          .filter(([, box]) => box.height < 24 || box.left < 0 || box.right > innerWidth)
          .map(([name, box]) => `${name} ${JSON.stringify(box)}`),
      );
      assert.deepEqual(wrong, [], tab);
    }
  }));

test("the whole page with the keyboard alone", () =>
  visit(here, { double: { tokenMs: 20, rows: ROWS, rowMs: 5, cached: [{ key: "a", url: "https://x.example/a.gguf", bytes: 5, complete: true }] } }, async (page) => {
    await ready(page);
    const { keyboard } = page;
    const focused = () =>
      page.evaluate(() => {
        const element = document.activeElement;
        return element.id || element.getAttribute("aria-label") || element.textContent.trim();
      });
    /** Presses Tab until something has the focus; every stop on the way must be seen. */
    const tabTo = async (wanted, key = "Tab") => {
      for (let i = 0; i < 60; i++) {
        await keyboard.press(key);
        const now = await focused();
        const outline = await page.evaluate(() => {
          const element = document.activeElement;
          const shown = (style) => style.outlineStyle !== "none" && Number.parseFloat(style.outlineWidth) > 0;
          const around = element.closest(".field:focus-within, .drop:focus-within");
          return shown(getComputedStyle(element)) || (around && (getComputedStyle(around).boxShadow !== "none" || shown(getComputedStyle(around))));
        });
        assert.ok(outline || now === "views", `the focus on ${now} cannot be seen`);
        if (now === wanted) return;
      }
      assert.fail(`Tab never reaches ${wanted}`);
    };

    assert.equal(await focused(), "prompt", "where one begins");
    await keyboard.type("First line");
    await keyboard.press("Shift+Enter");
    await keyboard.type("second");
    await keyboard.press("Enter");
    assert.equal(await page.locator(".mine .text").innerText(), "First line\nsecond");
    assert.equal(await page.inputValue("#prompt"), "");
    await page.waitForFunction(() => document.querySelector(".reply .text")?.innerText.length > 5);
    await keyboard.press("Escape");
    await reply(page);
    assert.match(await page.locator(".foot").innerText(), /stopped/);
    assert.equal(await focused(), "prompt", "stopping leaves the focus where it is");

    await tabTo("tab-chat", "Shift+Tab");
    await keyboard.press("ArrowRight");
    assert.equal(await focused(), "tab-model");
    assert.ok(await page.locator("#view-model").isVisible());
    await page.locator(".cached li").waitFor();
    await tabTo("file");
    await tabTo("url");
    await keyboard.type("https://x.example/b.gguf");
    await keyboard.press("Enter");
    await page.locator(".planned .actions").waitFor();
    await tabTo("Load it");
    await keyboard.press("Enter");
    await ready(page);
    assert.ok(await page.locator("#view-chat").isVisible());
    assert.equal(await focused(), "tab-chat");

    await keyboard.press("End");
    assert.equal(await focused(), "tab-check");
    await tabTo("run-check");
    await keyboard.press("Enter");
    await page.getByText("Finished after").waitFor();
    assert.equal(await focused(), "run-check");
    await tabTo("Checked cases");
    await tabTo("tab-check", "Shift+Tab");
    await keyboard.press("ArrowLeft");
    assert.equal(await focused(), "tab-benchmark");
    await tabTo("run-benchmark");
    await keyboard.press("Space");
    await page.getByText("Finished in").waitFor();
    await tabTo("tab-benchmark", "Shift+Tab");
    await keyboard.press("ArrowRight");
    await keyboard.press("ArrowRight");
    assert.equal(await focused(), "tab-chat", "the tabs go round");
  }));

test("on a phone Escape closes the settings and gives the focus back", () =>
  visit(here, { device: PHONE }, async (page) => {
    await ready(page);
    await page.click("#show-settings");
    assert.equal(await page.getAttribute("#show-settings", "aria-expanded"), "true");
    await page.keyboard.press("Escape");
    assert.ok(await page.locator("#settings").isHidden());
    assert.equal(await page.evaluate(() => document.activeElement.id), "show-settings");
  }));
