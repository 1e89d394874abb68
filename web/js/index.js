// The page's side of anygpu: each engine is a worker behind promises and asynchronous iterators.

import { cache } from "./cache.js";
import { asFailure, checkSignal, failure } from "./errors.js";

export { cache };

/** A worker and the requests that wait for it. */
class Client {
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "anygpu" });
  #waiting = new Map();
  #next = 1;
  /** @type {Error | null} */
  ended = null;
  onEvent = (event) => {};

  constructor() {
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => {
      event.preventDefault?.();
      this.terminate(failure("Io", `the worker failed: ${event.message || "its script could not be loaded"}`));
    };
    this.#worker.onmessageerror = () => this.terminate(failure("Io", "a message of the worker could not be read"));
  }

  #receive({ id, event, result, error, ...rest }) {
    if (event) return this.onEvent(event);
    const waiting = this.#waiting.get(id);
    if (!waiting) return;
    if (error) {
      this.#waiting.delete(id);
      waiting.reject(failure(error.name, error.message));
    } else if (result !== undefined || "result" in rest || Object.keys(rest).length === 0) {
      this.#waiting.delete(id);
      waiting.resolve(result);
    } else {
      waiting.onMessage?.(rest);
    }
  }

  /** Sends a request; `onMessage` gets what comes before its result. A signal asks the worker to stop. */
  request(method, params, { signal, onMessage } = {}) {
    if (this.ended) return Promise.reject(this.ended);
    const id = this.#next++;
    const stop = () => this.cancel(id);
    const promise = new Promise((resolve, reject) => {
      checkSignal(signal);
      this.#waiting.set(id, { resolve, reject, onMessage });
      this.#worker.postMessage({ id, method, params });
      signal?.addEventListener("abort", stop, { once: true });
    });
    const done = promise.finally(() => signal?.removeEventListener("abort", stop));
    return Object.assign(done, { id });
  }

  cancel(id) {
    if (!this.ended) this.#worker.postMessage({ method: "cancel", params: { id } });
  }

  /** Ends the worker; what waits for it fails with `error`. */
  terminate(error) {
    if (this.ended) return;
    this.ended = error;
    this.#worker.terminate();
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}

/** A worker that is started and has no engine: for the next question or the next engine. */
let spare = null;
let spareTimer;

function takeClient() {
  clearTimeout(spareTimer);
  const client = spare && !spare.ended ? spare : new Client();
  spare = null;
  return client;
}

function giveBack(client) {
  client.onEvent = () => {};
  if (client.ended) return;
  if (spare) return client.terminate(failure("Io", "the worker is not needed any more"));
  spare = client;
  spareTimer = setTimeout(() => {
    spare?.terminate(failure("Io", "the worker is not needed any more"));
    spare = null;
  }, 30_000);
}

async function ask(method, params, options) {
  const client = takeClient();
  try {
    return await client.request(method, params, options);
  } finally {
    giveBack(client);
  }
}

/** Any source as what a worker takes. */
function sourceOf(source) {
  if (source instanceof Blob) return { blob: source };
  // A Blob can be read again after a lost device, and need not stay in memory.
  if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) return { blob: new Blob([source]) };
  const { url, sha256, bytes } = typeof source === "string" || source instanceof URL ? { url: source } : (source ?? {});
  if (!url) {
    throw failure("Shape", "source: expected a URL, { url, sha256, bytes }, a File, a Blob or an ArrayBuffer");
  }
  if (sha256 !== undefined && !/^[0-9a-fA-F]{64}$/.test(sha256)) {
    throw failure("Shape", `source: sha256 is ${JSON.stringify(sha256)}, expected 64 hexadecimal digits`);
  }
  if (bytes !== undefined && !(Number.isSafeInteger(bytes) && bytes > 0)) {
    throw failure("Shape", `source: bytes is ${bytes}, expected a whole number above 0`);
  }
  return { url: new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href).href, sha256: sha256?.toLowerCase(), bytes };
}

/** Options that are there, for a side that has defaults of its own. */
const given = (options) => Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined && value !== null));

/** `max_buffer_bytes` as `maxBufferBytes`, at every depth. */
function camel(value) {
  if (Array.isArray(value)) return value.map(camel);
  if (value === null || typeof value !== "object") return value;
  const name = (key) => key.replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [name(key), camel(item)]));
}

/** A model on the GPU. */
export class Engine {
  #client;
  #info;
  #disposed = null;

  /** @internal */
  constructor(client, info) {
    this.#client = client;
    this.#info = info;
  }

  /** Loads a model onto the GPU. */
  static async load(source, options = {}) {
    const { onProgress, onEvent, signal, cache = true, contextLength, slots, profile, ahead } = options;
    checkSignal(signal);
    const spec = sourceOf(source);
    const client = takeClient();
    client.onEvent = (event) => {
      const { type, ...rest } = event;
      if (type === "progress") onProgress?.(rest);
      else onEvent?.(event);
    };
    const abort = () => client.terminate(failure("Cancelled", "cancelled by the caller"));
    signal?.addEventListener("abort", abort, { once: true });
    try {
      const params = { source: spec, cache: cache && !spec.blob, options: given({ contextLength, slots, profile, ahead }) };
      return new Engine(client, camel(await client.request("load", params)));
    } catch (error) {
      client.terminate(asFailure(error));
      throw error;
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** What a model is and would take on the GPU, from its header. */
  static async plan(source, options = {}) {
    const { contextLength, slots, profile, cache = true, signal } = options;
    const spec = sourceOf(source);
    const params = { source: spec, cache: cache && !spec.blob, options: given({ contextLength, slots, profile }) };
    return camel(await ask("plan", params, { signal }));
  }

  /** The browser's adapter. */
  static async adapter(options = {}) {
    return camel(await ask("adapter", given({ profile: options.profile })));
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
    this.#disposed ??= (async () => {
      const client = this.#client;
      if (client.ended) return;
      client.onEvent = () => {};
      // What runs ends first: the device goes with nothing on it.
      for (const id of client.running ?? []) client.cancel(id);
      await client.request("dispose").catch(() => {});
      client.terminate(failure("Io", "the engine was disposed"));
    })();
    return this.#disposed;
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
    (client.running ??= new Set()).add(this.#request.id);
    this.metrics = this.#request.then((metrics) => {
      if (signal?.aborted) throw failure("Cancelled", "cancelled by the caller");
      return metrics;
    });
    this.metrics
      .catch((error) => (this.#error = error))
      .finally(() => {
        client.running.delete(this.#request.id);
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
  const summary = await ask("check", { options: given({ profile, filter }) }, { signal, onMessage });
  return { ...camel(summary), rows };
}
