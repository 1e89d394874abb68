// The page in a real browser: its sources with the stand-in engine of `double/`.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { launch } from "../lib/browser.mjs";
import { serve } from "../lib/server.mjs";

const WEB = fileURLToPath(new URL("../..", import.meta.url));
const DOUBLE = fileURLToPath(new URL("double", import.meta.url));

/** A browser, and the page's sources with `double/` as the engine; `close` ends both. */
export async function site() {
  const server = await serve({ "/": WEB, "/anygpu/": DOUBLE });
  const browser = await launch();
  const close = async () => {
    await browser.close();
    await server.close();
  };
  return { browser, url: server.url, close };
}

export const PHONE = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true, deviceScaleFactor: 2 };
export const DESKTOP = { viewport: { width: 1280, height: 800 } };

/**
 * Runs `act` on the page with the stand-in engine set as `double` says, and fails on any console error or warning that
 * was not expected.
 *
 * @param {{ browser: import("playwright-core").Browser, url: string }} site
 */
export async function visit({ browser, url }, { double = {}, path = "", device = DESKTOP, noGpu = false, expected = [], ...rest }, act) {
  const context = await browser.newContext({ ...device, reducedMotion: "reduce", ...rest });
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complaints.push(`${message.type()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`uncaught: ${error.message}`));
  page.on("requestfailed", (request) => {
    // What the page itself broke off, as a download that has told its length, is no failure.
    if (request.failure()?.errorText !== "net::ERR_ABORTED") complaints.push(`request failed: ${request.url()}`);
  });
  await page.addInitScript(
    ({ double, noGpu }) => {
      globalThis.double = double;
      if (noGpu) Object.defineProperty(Navigator.prototype, "gpu", { get: () => undefined });
    },
    { double, noGpu },
  );
  try {
    await page.goto(url + path);
    await act(page);
    await shot(page);
    const unexpected = complaints.filter((text) => !expected.some((pattern) => pattern.test(text)));
    assert.deepEqual(unexpected, [], "the browser's console");
  } finally {
    await context.close();
  }
}

let shots = 0;

/** The page as it looks at the end of a test, where ANYGPU_SHOTS names a folder. */
async function shot(page) {
  const folder = process.env.ANYGPU_SHOTS;
  if (!folder) return;
  await mkdir(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${process.pid}-${String(++shots).padStart(2, "0")}.png`) });
}

/** Waits until the header says that the model is loaded. */
export const ready = (page, timeout = 10_000) => page.waitForFunction(() => document.querySelector("#state").dataset.kind === "good", null, { timeout });

/** Writes and sends as a person does. */
export async function say(page, text) {
  await page.fill("#prompt", text);
  await page.press("#prompt", "Enter");
}

/** Waits until the last reply is complete and gives its text. */
export async function reply(page, timeout = 10_000) {
  await page.waitForFunction(() => document.querySelector(".reply:last-child:not(.writing)"), null, { timeout });
  return page.locator(".reply .text").last().innerText();
}

/** What the page asked the stand-in engine for. */
export const calls = (page, name) => page.evaluate((name) => globalThis.doubleCalls.filter(({ call }) => call === name), name);
