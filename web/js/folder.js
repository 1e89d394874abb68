// What lies beside the weights in a model's folder: small files, fetched each time through the browser's own cache.

import { failure } from "./errors.js";

/** Names of the files, by what the WASM calls them; the first two are needed. */
const FILES = {
  config: "config.json",
  tokenizer: "tokenizer.json",
  modules: "modules.json",
  pooling: "1_Pooling/config.json",
  sentence: "sentence_bert_config.json",
  prompts: "config_sentence_transformers.json",
};
const NEEDED = new Set(["config", "tokenizer"]);

async function fetched(name, url, signal) {
  let response;
  try {
    response = await fetch(url, { signal });
    if (response.ok) return new Uint8Array(await response.arrayBuffer());
  } catch (error) {
    if (signal.aborted) throw failure("Cancelled", "cancelled by the caller");
    throw failure("Io", `${url}: ${error.message}`);
  }
  if ([404, 410].includes(response.status) && !NEEDED.has(name)) return undefined;
  throw failure("Io", `${url}: the server answered ${response.status}`);
}

/** The bytes of those files that are there. */
export async function besideWeights(folder, signal) {
  const found = await Promise.all(Object.entries(FILES).map(async ([name, path]) => [name, await fetched(name, new URL(path, folder), signal)]));
  return Object.fromEntries(found);
}
