// How long it is from opening the page to the first token of the shipped model, first with nothing kept, then on reloads.
//
//   node web/tests/page/first-token.mjs [--runs 5] [--reloads 3] [--url http://localhost:8080/]      prints JSON, milliseconds
//
// Takes web/dist (`cargo xtask web`), or a server that is already running (`cargo xtask serve`), and the adapter of
// ANYGPU_BROWSER_ADAPTER (swiftshader, gpu, gpu-f16).

import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { launch, open } from "../lib/browser.mjs";
import { serve } from "../lib/server.mjs";

const DIST = fileURLToPath(new URL("../../dist", import.meta.url));
const { values } = parseArgs({ options: { runs: { type: "string", default: "5" }, reloads: { type: "string", default: "3" }, url: { type: "string" } } });

/** Waits for the first token and says when it and what came before it were there. */
async function measured(page) {
  // To the end of the reply: a reload must not wait for what the GPU still does for the page before it.
  await page.waitForFunction(() => document.querySelector(".reply:not(.writing)"), null, { timeout: 300_000 });
  const found = await page.evaluate(() => {
    const at = (name) => performance.getEntriesByName(name)[0]?.startTime;
    return {
      first_paint_ms: at("first-contentful-paint"),
      load_ms: at("anygpu:load"),
      ready_ms: at("anygpu:ready"),
      first_token_ms: at("anygpu:first-token"),
    };
  });
  return Object.fromEntries(Object.entries(found).map(([name, value]) => [name, Math.round(value)]));
}

const server = values.url ? null : await serve({ "/": DIST });
const url = new URL(values.url ?? server.url);
url.searchParams.set("ask", "What is a slice?");
const opened = [];
const reloaded = [];
let adapter;
for (let run = 0; run < Number(values.runs); run++) {
  // A browser of its own each time: its GPU process and caches begin anew.
  const browser = await launch();
  const context = await browser.newContext();
  await context.addInitScript(() => localStorage.setItem("anygpu.settings", JSON.stringify({ temperature: 0, maxTokens: 8 })));
  const { page, problems } = await open(context, url.href);
  opened.push(await measured(page));
  adapter = await page.locator("#state").getAttribute("title");
  for (let i = 0; i < Number(values.reloads); i++) {
    await page.reload();
    reloaded.push(await measured(page));
  }
  await browser.close();
  if (problems.length > 0) throw new Error(problems.join("\n"));
}
await server?.close();
const middle = (all, name) => all.map((each) => each[name]).sort((a, b) => a - b)[Math.floor(all.length / 2)];
console.log(
  JSON.stringify(
    {
      adapter,
      opened_first_token_p50_ms: middle(opened, "first_token_ms"),
      reloaded_first_token_p50_ms: middle(reloaded, "first_token_ms"),
      opened,
      reloaded,
    },
    null,
    2,
  ),
);
