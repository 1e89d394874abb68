// A real Chromium with WebGPU for tests, and a page that keeps what went wrong in it.

import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { chromium } from "playwright-core";

/** Nothing from the network but what a page asks for. */
const FLAGS = [
  "--no-sandbox",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--no-first-run",
];
// On Linux Chromium shows an adapter only with the first of these.
const WEBGPU = ["--enable-unsafe-webgpu"];
// A real GPU through Vulkan without a display: else the page falls back to the processor.
const VULKAN = [...WEBGPU, "--enable-features=Vulkan", "--use-angle=vulkan", "--disable-vulkan-surface", "--ignore-gpu-blocklist"];
const ADAPTERS = {
  swiftshader: [...WEBGPU, "--use-webgpu-adapter=swiftshader"],
  gpu: VULKAN,
  // Dawn hides f16 on NVIDIA unless told.
  "gpu-f16": [...VULKAN, "--enable-dawn-features=vulkan_enable_f16_on_nvidia"],
  none: [],
};
const PROGRAMS = ["chromium", "chromium-browser", "google-chrome-stable", "google-chrome", "chromium-headless-shell"];
const ELSEWHERE = [
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
  "/Applications/Chromium.app/Contents/MacOS/Chromium",
  "C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe",
];

/** Path of the browser: `ANYGPU_CHROMIUM`, or the first that is installed. */
export function browserPath() {
  if (process.env.ANYGPU_CHROMIUM) return process.env.ANYGPU_CHROMIUM;
  const folders = (process.env.PATH ?? "").split(delimiter).filter(Boolean);
  const candidates = [...PROGRAMS.flatMap((program) => folders.map((folder) => join(folder, program))), ...ELSEWHERE];
  const found = candidates.find((path) => existsSync(path));
  if (!found) throw new Error(`found no Chromium: install it, or name one in ANYGPU_CHROMIUM (looked for ${PROGRAMS.join(", ")})`);
  return found;
}

/**
 * Starts a browser with a fresh profile.
 *
 * @param {object} [options]
 * @param {keyof typeof ADAPTERS} [options.adapter]  "none" is a browser without a GPU; "swiftshader" unless `ANYGPU_BROWSER_ADAPTER` says "gpu" or "gpu-f16"
 * @param {string[]} [options.flags]  more of them
 * @returns {Promise<import("playwright-core").Browser>}
 */
export async function launch({ adapter, flags = [] } = {}) {
  return chromium.launch(settings(adapter, flags));
}

function settings(adapter, flags) {
  const named = adapter ?? process.env.ANYGPU_BROWSER_ADAPTER ?? "swiftshader";
  const chosen = ADAPTERS[named];
  if (!chosen) throw new Error(`unknown adapter ${JSON.stringify(named)}, expected one of ${Object.keys(ADAPTERS).join(", ")}`);
  return { executablePath: browserPath(), args: [...FLAGS, ...chosen, ...flags], timeout: 120_000 };
}

/**
 * Starts a browser whose profile lies in `folder`, so that storage outlives it.
 *
 * @param {string} folder
 * @param {{ adapter?: keyof typeof ADAPTERS, flags?: string[] }} [options]
 * @returns {Promise<import("playwright-core").BrowserContext>}
 */
export async function launchWithProfile(folder, { adapter, flags = [] } = {}) {
  return chromium.launchPersistentContext(folder, settings(adapter, flags));
}

/**
 * Opens `url` in a new page. Everything that the console calls an error, and every exception that nobody caught, in the
 * page and in its workers, ends up in `problems`; a test that ends with some there has failed.
 *
 * @param {import("playwright-core").Browser | import("playwright-core").BrowserContext} browser
 * @param {string} url
 * @param {import("playwright-core").BrowserContextOptions & { timeoutMs?: number }} [options]
 */
export async function open(browser, url, { timeoutMs = 120_000, ...options } = {}) {
  const page = await /** @type {any} */ (browser).newPage(options);
  page.setDefaultTimeout(timeoutMs);
  const problems = watch(page);
  await page.goto(url);
  return { page, problems };
}

/**
 * Collects what goes wrong in `page` from now on.
 *
 * @param {import("playwright-core").Page} page
 * @returns {string[]}
 */
export function watch(page) {
  /** @type {string[]} */
  const problems = [];
  page.on("console", (message) => {
    // A request that failed is told again by whoever made it, or was meant to fail.
    if (message.type() !== "error" || message.text().startsWith("Failed to load resource")) return;
    problems.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => problems.push(`uncaught: ${error.stack ?? error}`));
  page.on("crash", () => problems.push("the page crashed"));
  return problems;
}
