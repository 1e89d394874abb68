// What the package's classes share: workers behind promises, and the arguments that they take.

import { asFailure, checkSignal, failure } from "./errors.js";

/**
 * What a worker runs: how it is started, and its WASM. Both name files in a form that bundlers find.
 *
 * @typedef {{ worker(): Worker, wasm(): Promise<Response> }} Program
 */

/** The WASM of programs, compiled once for all workers while the first of them starts; null where a page may not, which then do it themselves. */
const modules = new Map();

function compiled(program) {
  if (!modules.has(program)) modules.set(program, WebAssembly.compileStreaming(program.wasm()).catch(() => null));
  return modules.get(program);
}

/** A worker and the requests that wait for it. */
class Client {
  #disposed = null;
  #worker;
  #waiting = new Map();
  #next = 1;
  /** @type {Error | null} */
  ended = null;
  onEvent = (event) => {};

  constructor(program) {
    this.program = program;
    this.#worker = program.worker();
    this.#worker.onmessage = ({ data }) => this.#receive(data);
    this.#worker.onerror = (event) => {
      event.preventDefault?.();
      this.terminate(failure("Io", `the worker failed: ${event.message || "its script could not be loaded"}`));
    };
    this.#worker.onmessageerror = () => this.terminate(failure("Io", "a message of the worker could not be read"));
    compiled(program).then((module) => this.#worker.postMessage({ method: "begin", params: { module } }));
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

  /** Frees what is on the GPU and ends the worker; what waits for it ends first, so that the device goes with nothing on it. */
  dispose(reason) {
    this.#disposed ??= (async () => {
      if (this.ended) return;
      this.onEvent = () => {};
      for (const id of this.#waiting.keys()) this.cancel(id);
      await this.request("dispose").catch(() => {});
      this.terminate(failure("Io", reason));
    })();
    return this.#disposed;
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

function takeClient(program) {
  const client = spare?.program === program ? spare : null;
  if (client) {
    clearTimeout(spareTimer);
    spare = null;
  }
  return client && !client.ended ? client : new Client(program);
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

export async function ask(program, method, params, options) {
  const client = takeClient(program);
  try {
    return await client.request(method, params, options);
  } finally {
    giveBack(client);
  }
}

/** Loads something into a worker of its own and makes an object of that and what it says of itself. */
export async function loaded(program, method, params, { onProgress, onEvent, signal }, make) {
  checkSignal(signal);
  const client = takeClient(program);
  client.onEvent = (event) => {
    const { type, ...rest } = event;
    if (type === "progress") onProgress?.(rest);
    else onEvent?.(event);
  };
  const abort = () => client.terminate(failure("Cancelled", "cancelled by the caller"));
  signal?.addEventListener("abort", abort, { once: true });
  try {
    return make(client, camel(await client.request(method, params)));
  } catch (error) {
    client.terminate(asFailure(error));
    throw error;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

/** Any source as what a worker takes. */
export function sourceOf(source) {
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
export const given = (options) => Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined && value !== null));

/** `max_buffer_bytes` as `maxBufferBytes`, at every depth. */
export function camel(value) {
  if (Array.isArray(value)) return value.map(camel);
  if (value === null || typeof value !== "object") return value;
  const name = (key) => key.replace(/_([a-z0-9])/g, (_, letter) => letter.toUpperCase());
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [name(key), camel(item)]));
}

