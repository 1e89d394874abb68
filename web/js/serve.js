// What a worker does, whichever WASM it has: it owns that, the device and the source. Requests `{ id, method, params }`
// come in; `{ id, result }`, `{ id, error }` and, meanwhile, `{ id, piece }`, `{ id, row }`, `{ id, progress }` and
// `{ event }` go out.

import { readShaders, writeShaders } from "./cache.js";
import { failure, packed } from "./errors.js";
import { besideWeights } from "./folder.js";
import * as gpu from "./gpu.js";
import { openSource } from "./source.js";

/** What wasm-bindgen wrote beside the WASM. */
let wasm;
/** Begun as soon as the page has compiled the WASM; the browser starts its GPU side meanwhile. */
let begin;
const started = new Promise((resolve) => (begin = resolve)).then((module) => wasm.default(module ? { module_or_path: module } : undefined));
started.catch(() => {});
navigator.gpu?.requestAdapter({ powerPreference: "high-performance" }).catch(() => {});

/** An engine or an embedder of the WASM. */
let engine = null;
let source = null;
/** Where it is noted which shaders the engine needs, and which stand there: `{ url, options, noted }`. */
let shaders = null;
let noting = Promise.resolve();
let aborted = new AbortController();
/** Why nothing more can be done, once the WASM has stopped. */
let dead = null;
/** Requests that were cancelled before they began. */
const cancelled = new Set();
let running = null;
let loading = null;

const tell = (event) => postMessage({ event });

gpu.listeners.lost = (message) => tell({ type: "device-lost", message });
gpu.listeners.fault = (message) => wasm.fault(message);

/** Speed and time left, for progress that is told at most ten times a second. */
class Meter {
  #start = performance.now();
  #first = null;
  #told = 0;

  constructor(fields) {
    this.fields = fields;
  }

  tell(loadedBytes, totalBytes) {
    const now = performance.now();
    this.#first ??= loadedBytes;
    if (now - this.#told < 100 && loadedBytes < totalBytes) return;
    this.#told = now;
    const seconds = (now - this.#start) / 1000;
    const bytesPerSecond = seconds > 0.05 ? (loadedBytes - this.#first) / seconds : null;
    const secondsLeft = bytesPerSecond > 0 ? (totalBytes - loadedBytes) / bytesPerSecond : null;
    tell({ type: "progress", ...this.fields, loadedBytes, totalBytes, bytesPerSecond, secondsLeft });
  }
}

/** What the engine asks of JavaScript. */
const host = {
  describe: gpu.describe,
  compile: gpu.compile,
  tell(json) {
    const message = JSON.parse(json);
    if (message.type !== "progress") return tell(message);
    if (message.phase === "load") return loading?.loaded(message.loadedBytes, message.totalBytes);
    tell({ ...message, fromCache: loading?.fromCache ?? false });
  },
};

/** One load's progress: the network's while bytes still come from there, the GPU's once they do not. */
class Loading {
  #downloading = false;

  constructor() {
    this.download = new Meter({ phase: "download", fromCache: false });
    this.fromCache = false;
    this.load = null;
  }

  received(bytes, total) {
    this.#downloading = bytes < total;
    this.download.tell(bytes, total);
  }

  loaded(bytes, total) {
    if (this.#downloading) return;
    this.load ??= new Meter({ phase: "load", fromCache: this.fromCache });
    this.load.tell(bytes, total);
  }
}

async function open(spec, { cache, ahead }) {
  aborted = new AbortController();
  return openSource(spec, {
    cache,
    ahead,
    signal: aborted.signal,
    tell,
    progress: (received, total) => loading?.received(received, total),
    Sha256: wasm.Sha256,
  });
}

/** Opens a source, has an engine made of it, and returns what that says of itself. */
async function load({ source: spec, cache, options }, make) {
  loading = new Loading();
  const chosen = JSON.stringify(options);
  const noted = cache ? readShaders(spec.url, chosen) : null;
  source = await open(spec, { cache, ahead: true });
  loading.fromCache = source.fromCache ?? false;
  shaders = cache ? { url: spec.url, options: chosen, noted: await noted } : null;
  gpu.expect(shaders?.noted ?? []);
  try {
    engine = await make(chosen);
    await source.settle();
  } catch (error) {
    await methods.dispose();
    throw error;
  }
  loading = new Loading();
  loading.fromCache = true;
  noteShaders();
  return JSON.parse(engine.info());
}

/** Notes the shaders that the engine had compiled where one of them is new, so that its next load begins them with its device. */
function noteShaders() {
  const used = gpu.compiled();
  if (!shaders || used.every(({ source }) => shaders.noted.some((noted) => noted.source === source))) return;
  shaders.noted = used;
  // What cannot be kept is compiled when it is needed.
  noting = writeShaders(shaders.url, shaders.options, used).catch(() => {});
}

const methods = {
  async adapter({ profile }) {
    return JSON.parse(await wasm.adapter(host, profile));
  },

  async plan({ source: spec, cache, options }) {
    const header = await open(spec, { cache, ahead: false });
    try {
      return JSON.parse(await wasm.plan(host, header, JSON.stringify(options)));
    } finally {
      header.close();
    }
  },

  async load(params) {
    return load(params, (options) => wasm.Engine.load(host, source, options));
  },

  async loadEmbedder(params) {
    const { folder } = params.source;
    return load(params, async (options) => {
      const beside = folder ? await besideWeights(folder, aborted.signal) : {};
      return wasm.Embedder.load(host, { ...beside, weights: source }, options);
    });
  },

  async embed({ texts, options }, send) {
    const onProgress = (done, total) => send({ progress: { done, total } });
    return engine.embed(texts, JSON.stringify(options), onProgress);
  },

  async generate({ request }, send) {
    const metrics = JSON.parse(await engine.generate(JSON.stringify(request), (piece) => send({ piece })));
    noteShaders();
    return metrics;
  },

  async benchmark({ options }, send) {
    const cores = navigator.hardwareConcurrency;
    const described = {
      os: navigator.userAgent,
      cpu: cores ? `${cores} threads` : null,
      date: new Date().toISOString().replace(/\.\d+Z$/, "Z"),
      command: "engine.benchmark()",
      ...options,
    };
    return JSON.parse(await engine.benchmark(JSON.stringify(described), (row) => send({ row: JSON.parse(row) })));
  },

  async check({ options }, send, id) {
    try {
      return JSON.parse(
        await wasm.check(host, JSON.stringify(options), (row) => {
          send({ row: JSON.parse(row) });
          return !cancelled.has(id);
        }),
      );
    } finally {
      gpu.release();
    }
  },

  /** Every shader for this browser through its own compiler: `[{ name, errors }]`. For tests. */
  async compileSources() {
    const adapter = await navigator.gpu.requestAdapter();
    const requiredFeatures = adapter.features.has("shader-f16") ? ["shader-f16"] : [];
    const device = await adapter.requestDevice({ requiredFeatures });
    const list = [];
    await wasm.sources(host, (json) => list.push(JSON.parse(json)));
    const results = [];
    for (const { name, source: text } of list) results.push({ name, errors: await gpu.compilerErrors(text) });
    gpu.release();
    device.destroy();
    return results;
  },

  async info() {
    return JSON.parse(engine.info());
  },

  async memory() {
    const { memory } = await started;
    const own = engine ? JSON.parse(engine.memory()) : { currentBytes: 0, peakBytes: 0 };
    return { ...own, wasmBytes: memory.buffer.byteLength };
  },

  async forget() {
    engine?.forget();
  },

  /** Shaders that were begun with the device, and those of them that the engine then asked for. For tests. */
  async expected() {
    return gpu.expected();
  },

  /** Destroys the device as a driver's reset would. For tests. */
  async lose() {
    gpu.lose();
  },

  async dispose() {
    gpu.release();
    engine?.dispose();
    engine?.free();
    engine = null;
    source?.close();
    source = null;
    aborted.abort();
    await noting;
  },
};

/** Those that answer while another runs. */
const IMMEDIATE = new Set(["memory", "lose", "info"]);
let queue = Promise.resolve();

function cancel(id) {
  cancelled.add(id);
  if (running === id) {
    engine?.cancel();
    if (!engine) aborted.abort();
  }
}

async function run({ id, method, params }) {
  // Vectors are handed over, not copied.
  const send = (message) => postMessage({ id, ...message }, message.result instanceof Float32Array ? [message.result.buffer] : []);
  if (cancelled.has(id)) return send({ error: packed(failure("Cancelled", "cancelled by the caller")) });
  try {
    await started;
    if (dead) throw dead;
    if (["generate", "benchmark", "embed"].includes(method) && !engine) throw failure("Io", "the engine was disposed");
    send({ result: await methods[method](params ?? {}, send, id) });
  } catch (error) {
    // A panic or an overflowed stack leaves the WASM in no state to go on from.
    if (error instanceof WebAssembly.RuntimeError || error instanceof RangeError) {
      dead = failure("Unsupported", `the engine stopped: ${error.message}; the console says more`);
      error = dead;
    }
    send({ error: packed(error) });
  }
}

/** Answers what comes, with the WASM of these bindings. */
export function serve(bindings) {
  wasm = bindings;
  onmessage = ({ data }) => {
    if (data.method === "begin") return begin(data.params.module);
    if (data.method === "cancel") return cancel(data.params.id);
    if (IMMEDIATE.has(data.method)) return void run(data);
    queue = queue.then(async () => {
      running = data.id;
      await run(data);
      running = null;
      cancelled.delete(data.id);
    });
  };
}
