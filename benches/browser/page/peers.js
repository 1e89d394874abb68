// Measures one engine in a page of its own: peers.html?engine=NAME&gguf=URL&onnx=FOLDER&dtype=…&…
// The result is sent to /result as JSON. Every engine is timed from outside, through what its package offers to pages:
//
//   load      from before the engine's code is fetched until its model is ready, and until the first token after that
//   prefill   from the call until the first token of a prompt of so many tokens that the engine has not seen
//   decode    from the first token of an answer until the last, over the tokens between them
//
// An engine is a module with `start(settings)` that resolves to { version, runsOn, generate, stop }, where
// generate(prompt, count, onToken) writes `count` tokens after `prompt`, greedily, calls `onToken` as they arrive, and
// resolves to { written, tokens, text }: how many, and what of the other two it can tell.

const query = new URLSearchParams(location.search);
const settings = {
  gguf: new URL(query.get("gguf"), location.href).href,
  onnx: query.get("onnx"),
  dtype: query.get("dtype"),
  profile: query.get("profile") || undefined,
  contextLength: Number(query.get("context") ?? 2048),
};
const tokens = Number(query.get("tokens") ?? 128);
// { first, prefill: […], decode: […], check }, each prompt as { ids, text }, which mean the same.
const prompts = await (await fetch("/prompts.json")).json();

const ENGINES = { "anygpu-browser": "./anygpu.js", "anygpu-suites": "./suites.js", wllama: "./wllama.js", "transformers.js": "./transformers.js" };

function log(text) {
  console.log(text);
  document.querySelector("#log").append(`${text}\n`);
}

async function measure(name) {
  const begin = performance.now();
  const { start } = await import(ENGINES[name]);
  const engine = await start(settings);
  if (engine.report) return { engine: name, ...engine };
  const loadMs = performance.now() - begin;
  log(`${name} ${engine.version} on ${engine.runsOn}: loaded in ${loadMs.toFixed(0)} ms`);

  const run = async (prompt, count) => {
    const called = performance.now();
    const arrivals = [];
    const answer = await engine.generate(prompt, count, () => arrivals.push(performance.now()));
    if (arrivals.length === 0) throw new Error(`no token after a prompt of ${prompt.ids.length}`);
    return { firstMs: arrivals[0] - called, decodeMs: arrivals.at(-1) - arrivals[0], answer, written: answer.written };
  };

  const first = await run(prompts.first, 16);
  const firstMs = performance.now() - begin - first.decodeMs;
  log(`first token after ${firstMs.toFixed(0)} ms`);

  const prefill = [];
  for (const [i, prompt] of prompts.prefill.entries()) {
    const { firstMs } = await run(prompt, 1);
    // The first one compiles.
    if (i > 0) prefill.push(firstMs);
    log(`${prompt.ids.length} tokens: first token after ${firstMs.toFixed(1)} ms`);
  }
  const decode = [];
  for (const [i, prompt] of prompts.decode.entries()) {
    const { decodeMs, written } = await run(prompt, tokens);
    // An answer that ends at once tells little.
    if (i > 0 && written >= tokens / 2) decode.push({ ms: decodeMs, tokens: written - 1 });
    log(`${written} tokens: ${(((written - 1) / decodeMs) * 1000).toFixed(1)} tokens/s`);
  }
  const check = await run(prompts.check, 16);
  await engine.stop();
  const { version, runsOn, adapter } = engine;
  return { engine: name, version, runsOn, adapter, loadMs, firstMs, prefillMs: prefill, tokens, decode, answer: check.answer };
}

let result;
try {
  result = await measure(query.get("engine"));
} catch (error) {
  result = { engine: query.get("engine"), error: `${error?.name ?? "Error"}: ${error?.message ?? error}`, stack: error?.stack };
  log(result.error);
}
result.userAgent = navigator.userAgent;
result.threads = navigator.hardwareConcurrency;
await fetch("/result", { method: "POST", body: JSON.stringify(result) });
document.title = "done";
