// What every file of engine tests starts from: the built package behind a server that can fail, and a page that has
// imported it.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { launch, open } from "../lib/browser.mjs";
import { serve } from "../lib/server.mjs";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
/** The folder of the built site. */
export const dist = process.env.ANYGPU_WEB_DIST ?? here("../../dist/");

/** The path of the shipped model, on the server. */
export const MODEL = "/models/anygpu-rust-6m-f16.gguf";
/** Its file. */
export const MODEL_FILE = here("../../../benches/models/anygpu-rust-6m-f16.gguf");

/** What the command line writes natively: `make-greedy.mjs`. */
export const greedy = JSON.parse(await readFile(here("greedy.json"), "utf8"));

/**
 * Starts a server and a browser with one page.
 *
 * @param {{ folders?: Record<string, string>, flags?: string[] }} [options]
 */
export async function start({ folders = {}, flags = [] } = {}) {
  if (!existsSync(`${dist}/anygpu/anygpu_web_bg.wasm`)) {
    throw new Error(`${dist}: found no built package, run \`cargo xtask web\` first`);
  }
  const server = await serve({ "/": dist, "/models/": here("../../../benches/models/"), "/engine/": here("./"), ...folders });
  const browser = await launch({ flags });
  // The first dispatches of a software adapter take seconds each where other work runs beside.
  const { page, problems } = await open(browser, `${server.url}engine/blank.html`, { timeoutMs: 600_000 });
  await page.waitForSelector("html[data-ready]", { state: "attached" });
  return {
    server,
    browser,
    page,
    problems,
    /** Runs code in the page, where the package's names are global. */
    run: (/** @type {any} */ code, /** @type {any} */ argument) => page.evaluate(code, argument),
    async stop() {
      await browser.close();
      await server.close();
    },
  };
}
