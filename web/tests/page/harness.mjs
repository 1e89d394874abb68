// The page in a real browser: served from the sources with the stand-in engine, or from web/dist with the real one.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const WEB = fileURLToPath(new URL("../..", import.meta.url));
const DOUBLE = fileURLToPath(new URL("double", import.meta.url));
const TYPES = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml" };

/** The page's sources with `double/` as the engine. */
export async function serveDouble() {
  const server = createServer(async (request, response) => {
    const path = normalize(new URL(request.url, "http://localhost").pathname);
    const file = path.startsWith("/anygpu/") ? join(DOUBLE, path.slice("/anygpu/".length)) : join(WEB, path === "/" ? "index.html" : path);
    try {
      const body = await readFile(file);
      response.writeHead(200, { "content-type": TYPES[extname(file)] ?? "application/octet-stream" });
      response.end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => new Promise((resolve) => server.close(resolve)) };
}

const FLAGS = [
  "--no-sandbox",
  "--enable-unsafe-webgpu",
  "--use-webgpu-adapter=swiftshader",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
];

export async function launch() {
  const executablePath = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find((path) => path && existsSync(path));
  return chromium.launch({ executablePath, args: FLAGS });
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
  page.on("requestfailed", (request) => complaints.push(`request failed: ${request.url()}`));
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
