// The page's side of anygpu: each engine is a worker behind promises and asynchronous iterators.

import { cache } from "./cache.js";
import { ask, camel, given, loaded, sourceOf } from "./client.js";
import { CORE } from "./core.js";
import { Embedder } from "./embedder.js";
import { checkSignal, failure } from "./errors.js";

export { cache, Embedder };

/** A model on the GPU. */
export class Engine {
  #client;
  #info;

  /** @internal */
  constructor(client, info) {
    this.#client = client;
    this.#info = info;
  }

  /** Loads a model onto the GPU. */
  static async load(source, options = {}) {
    const { onProgress, onEvent, signal, cache = true, contextLength, slots, profile, ahead } = options;
    const spec = sourceOf(source);
    const params = { source: spec, cache: cache && !spec.blob, options: given({ contextLength, slots, profile, ahead }) };
    return loaded(CORE, "load", params, { onProgress, onEvent, signal }, (client, info) => new Engine(client, info));
  }

  /** What a model is and would take on the GPU, from its header. */
  static async plan(source, options = {}) {
    const { contextLength, slots, profile, cache = true, signal } = options;
    const spec = sourceOf(source);
    const params = { source: spec, cache: cache && !spec.blob, options: given({ contextLength, slots, profile }) };
    return camel(await ask(CORE, "plan", params, { signal }));
  }

  /** The browser's adapter. */
  static async adapter(options = {}) {
    return camel(await ask(CORE, "adapter", given({ profile: options.profile })));
  }

  /** The adapter, the model and their memory, as they were when the model was loaded. */
  get info() {
    return this.#info;
  }

  /** GPU memory that the engine takes now and took at most, and the size of the worker's WASM memory. */
  memory() {
    return this.#client.request("memory");
  }

  /** Forgets the conversation. Not needed for another one to begin: it only shares nothing with the last. */
  forget() {
    return this.#client.request("forget");
  }

  /** Writes the answer to messages, or what follows a text. */
  generate(input, options = {}) {
    const { signal, raw, seed = Math.floor(Math.random() * 2 ** 53), stop, ...rest } = options;
    const request = { seed, stop: typeof stop === "string" ? [stop] : (stop ?? []) };
    for (const key of ["temperature", "topK", "topP", "minP", "repetitionPenalty", "repetitionWindow", "maxTokens"]) {
      if (rest[key] !== undefined && rest[key] !== null) request[key] = rest[key];
    }
    if (Array.isArray(input)) request.messages = input;
    else if (typeof input === "string" && raw) request.prompt = input;
    else if (typeof input === "string") request.messages = [{ role: "user", content: input }];
    else if (input?.tokens) request.tokens = [...input.tokens];
    else throw failure("Shape", "generate: expected a list of messages, a string or { tokens }");
    return new Generation(this.#client, request, signal);
  }

  /** Runs the benchmark's suites on this model; resolves to `report.json`. */
  benchmark(options = {}) {
    const { onRow, signal, ...rest } = options;
    return this.#client.request("benchmark", { options: given(rest) }, { signal, onMessage: ({ row }) => onRow?.(row) });
  }

  /** Frees all GPU memory and ends the worker. */
  dispose() {
    return this.#client.dispose("the engine was disposed");
  }

  /** @internal Requests that only tests make. */
  request(method, params) {
    return this.#client.request(method, params);
  }
}

/** Text as it is written, and what writing it took. */
class Generation {
  #client;
  #request;
  #pieces = [];
  #wake = () => {};
  #ended = false;
  #error = null;
  /** Resolves when the text has ended. */
  metrics;

  constructor(client, request, signal) {
    this.#client = client;
    const onMessage = ({ piece }) => {
      this.#pieces.push(piece);
      this.#wake();
    };
    this.#request = client.request("generate", { request }, { signal, onMessage });
    this.metrics = this.#request.then((metrics) => {
      if (signal?.aborted) throw failure("Cancelled", "cancelled by the caller");
      return metrics;
    });
    this.metrics
      .catch((error) => (this.#error = error))
      .finally(() => {
        this.#ended = true;
        this.#wake();
      });
  }

  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        while (this.#pieces.length > 0) yield this.#pieces.shift();
        if (this.#error) throw this.#error;
        if (this.#ended) return;
        await new Promise((resolve) => (this.#wake = resolve));
      }
    } finally {
      // A loop that is left early wants no more.
      if (!this.#ended) this.#client.cancel(this.#request.id);
    }
  }
}

/** Every kernel against its reference on this browser and GPU. */
export async function check(options = {}) {
  const { profile, filter, onRow, signal } = options;
  const rows = [];
  const onMessage = ({ row }) => {
    rows.push(row);
    onRow?.(row);
  };
  const summary = await ask(CORE, "check", { options: given({ profile, filter }) }, { signal, onMessage });
  return { ...camel(summary), rows };
}
