// Texts to vectors: what encoders in workers of their own have in common.

import { given, loaded, sourceOf } from "./client.js";
import { failure } from "./errors.js";

/** A model's file, or a folder of one on a server, as what a worker takes. */
function encoderOf(source) {
  const folder = source?.folder;
  if (folder === undefined) return sourceOf(source);
  const { sha256, bytes } = source;
  const base = new URL(folder, globalThis.document?.baseURI ?? globalThis.location?.href);
  // Names are resolved against the folder, not beside it.
  if (!base.pathname.endsWith("/")) base.pathname += "/";
  return { ...sourceOf({ url: new URL("model.safetensors", base), sha256, bytes }), folder: base.href };
}

/** Loads an encoder of class `Made` into a worker of `program`; `own` are the options that the WASM takes. */
export async function loadEncoder(Made, program, source, own, { onProgress, onEvent, signal, cache = true }) {
  const spec = encoderOf(source);
  const params = { source: spec, cache: cache && !spec.blob, options: given(own) };
  return loaded(program, "loadEmbedder", params, { onProgress, onEvent, signal }, (client, info) => new Made(client, info));
}

/** An encoder on the GPU, whichever program runs it. */
export class Encoder {
  #client;
  #info;

  /** @internal */
  constructor(client, { prompts, ...info }) {
    this.#client = client;
    this.#info = { ...info, prompts: Object.fromEntries(prompts) };
  }

  /** The adapter and the model, as they were when the model was loaded. */
  get info() {
    return this.#info;
  }

  /** Numbers of a vector. */
  get dimensions() {
    return this.#info.model.dimensions;
  }

  /** The vectors of texts, in their order. */
  async embed(texts, options = {}) {
    const { signal, onProgress, prefix, prompt, split } = options;
    if (!Array.isArray(texts) || !texts.every((text) => typeof text === "string")) {
      throw failure("Shape", "embed: expected a list of strings");
    }
    const params = { texts, options: given({ prefix, prompt, split }) };
    const onMessage = ({ progress }) => onProgress?.(progress);
    const values = await this.#client.request("embed", params, { signal, onMessage });
    const d = this.dimensions;
    return texts.map((_, index) => values.subarray(index * d, (index + 1) * d));
  }

  /** Frees all GPU memory and ends the worker. */
  dispose() {
    return this.#client.dispose("the encoder was disposed");
  }

  /** @internal Requests of one class, or that only tests make. */
  request(method, params) {
    return this.#client.request(method, params);
  }
}
