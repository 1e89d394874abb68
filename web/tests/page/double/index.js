// A stand-in for the engine package with the same API and no GPU: it drives states that are hard to reach with a real one.
// A test sets `globalThis.double` before the page runs; see DEFAULTS.

import { cancelled, failure } from "./errors.js";

export { cache } from "./cache.js";

const DEFAULTS = {
  /** Time that loading takes, in how many steps, and its size. */
  loadMs: 60,
  steps: 6,
  bytes: 11_678_656,
  compileMs: 10,
  /** "load" waits in its middle, "benchmark" behind its second row, until a test sets `globalThis.doubleGo`. */
  hold: null,
  /** Errors by method, as { name, message }: load, plan, generate, benchmark, check, adapter. */
  fail: {},
  /** The reply, cut into pieces of about four characters. */
  reply: "A slice is a view into a contiguous sequence. It does not own what it points to.",
  tokenMs: 4,
  /** Events while generating: { afterPieces, event }. */
  events: [],
  /** Error after so many pieces: { afterPieces, name, message }. */
  breaks: null,
  fits: true,
  /** Differences of the loaded model. */
  model: {},
  rows: [],
  rowMs: 5,
  failures: [],
};

const set = () => ({ ...DEFAULTS, ...globalThis.double });
/** What the page asked for, for tests to look at. */
const calls = (globalThis.doubleCalls = []);

function wait(ms, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(cancelled());
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(cancelled());
    });
  });
}

async function held(what, signal) {
  while (set().hold === what && !globalThis.doubleGo) await wait(10, signal);
}

const ADAPTER = {
  name: "Double GPU 9000",
  backend: "browser",
  features: { f16: true, subgroups: true, integerDot: true, timestamps: false, immediates: false, pipelineCache: false },
  isCpu: false,
  subgroup: { min: 32, max: 32 },
  limits: {
    maxBufferBytes: 4_294_967_292,
    maxBindingBytes: 2_147_483_644,
    maxStorageBuffers: 10,
    maxWorkgroupInvocations: 1024,
    maxWorkgroupBytes: 32_768,
  },
};

const MODEL = { name: "anygpu-rust 6M", dtype: "f16", layers: 6, vocabulary: 4096, contextLength: 2048, hasChatTemplate: true };

export class Engine {
  static async load(source, { onProgress, onEvent, signal, contextLength } = {}) {
    const d = set();
    calls.push({ call: "load", source: source?.name ?? source, contextLength });
    const began = performance.now();
    for (let i = 0; i <= d.steps; i++) {
      if (i > 0) await wait(d.loadMs / d.steps, signal);
      if (i === Math.floor(d.steps / 2)) await held("load", signal);
      const seconds = (performance.now() - began) / 1000;
      const loadedBytes = Math.round((d.bytes * i) / d.steps);
      const bytesPerSecond = seconds > 0 ? loadedBytes / seconds : 0;
      onProgress?.({
        phase: "download",
        loadedBytes,
        totalBytes: d.bytes,
        bytesPerSecond,
        secondsLeft: bytesPerSecond > 0 ? (d.bytes - loadedBytes) / bytesPerSecond : null,
        fromCache: false,
      });
      if (i > d.steps / 2 && d.fail.load) throw failure(d.fail.load);
    }
    onProgress?.({ phase: "compile", loadedBytes: 0, totalBytes: 0, bytesPerSecond: 0, secondsLeft: null, fromCache: false });
    await wait(d.compileMs, signal);
    const engine = new Engine();
    Object.assign(engine, { onEvent });
    engine.info = { adapter: ADAPTER, model: { ...MODEL, ...(source?.name && { name: source.name }), ...d.model }, contextLength: contextLength ?? 2048, memory: {}, loadMs: 1 };
    return engine;
  }

  static async plan(source, { contextLength } = {}) {
    const d = set();
    calls.push({ call: "plan", source: source?.name ?? source, contextLength });
    await wait(20);
    if (d.fail.plan) throw failure(d.fail.plan);
    const weightBytes = 3_825_065_984;
    const cacheBytes = 524_288 * (contextLength ?? 4096);
    return {
      model: { name: "Llama 2 7B", architecture: "llama", dtype: "q4_0", parameters: 6_738_415_616, contextLength: 4096, layers: 32, tensorBytes: weightBytes },
      contextLength: contextLength ?? 4096,
      slots: 1,
      ...(d.fits ? { weightBytes, cacheBytes, totalBytes: weightBytes + cacheBytes } : { reason: "the cache of 64 GiB is longer than a buffer of 4 GiB" }),
      fits: d.fits,
      limits: ADAPTER.limits,
      adapter: ADAPTER,
    };
  }

  static async adapter() {
    const d = set();
    if (d.fail.adapter) throw failure(d.fail.adapter);
    return ADAPTER;
  }

  async memory() {
    return { currentBytes: 24_400_000, peakBytes: 31_000_000, wasmBytes: 20_000_000 };
  }

  generate(messages, options) {
    const d = set();
    const { signal: _, ...plain } = options;
    calls.push({ call: "generate", messages: structuredClone(messages), options: plain });
    let settle;
    const metrics = new Promise((resolve, reject) => (settle = { resolve, reject }));
    metrics.catch(() => {});
    const engine = this;
    const pieces = d.reply.match(/[\s\S]{1,4}/g) ?? [];
    const began = performance.now();
    async function* stream() {
      let first = null;
      let count = 0;
      try {
        if (d.fail.generate) throw failure(d.fail.generate);
        for (const piece of pieces) {
          if (count >= options.maxTokens) break;
          await wait(d.tokenMs, options.signal);
          first ??= performance.now() - began;
          count += 1;
          yield piece;
          for (const { afterPieces, event } of d.events) if (afterPieces === count) engine.onEvent?.(event);
          if (d.breaks?.afterPieces === count) throw failure(d.breaks);
        }
        const seconds = (performance.now() - began - first) / 1000;
        settle.resolve({
          promptTokens: 14 * messages.length,
          prefilledTokens: 14,
          generatedTokens: count,
          firstTokenMs: first,
          tokensPerSecond: count > 1 ? count / seconds : null,
          finish: count < pieces.length ? "length" : "stop",
          tokens: [],
          forgottenMessages: 0,
          rebuilt: d.events.filter(({ event }) => event.type === "rebuilt").length,
        });
      } catch (error) {
        settle.reject(error);
        throw error;
      }
    }
    return Object.assign(stream(), { metrics });
  }

  async benchmark({ suites, onRow, signal }) {
    const d = set();
    calls.push({ call: "benchmark", suites });
    if (d.fail.benchmark) throw failure(d.fail.benchmark);
    const rows = d.rows.filter((row) => suites.includes(row.suite));
    for (const [i, row] of rows.entries()) {
      await wait(d.rowMs, signal);
      if (i === 2) await held("benchmark", signal);
      onRow?.(row);
    }
    return { schema: 1, environment: { adapter: { name: ADAPTER.name } }, rows };
  }

  async dispose() {
    calls.push({ call: "dispose" });
  }
}

export async function check({ profile, onRow, signal } = {}) {
  const d = set();
  calls.push({ call: "check", profile });
  if (d.fail.check) throw failure(d.fail.check);
  const rows = [];
  for (const kernel of ["copy", "embed", "rms_norm", "matmul", "matvec", "attention", "sample"]) {
    for (let i = 0; i < 12; i++) {
      await wait(d.rowMs, signal);
      const name = `${kernel} q4_0 ${i + 1}x256`;
      const failure = d.failures.includes(name) ? "NMSE 0.31 is above 1e-6; 17 of 256 values differ" : null;
      const row = { name, kernel, nmse: failure ? 0.31 : i * 1.3e-9, failure, ms: 0.7 + i };
      rows.push(row);
      onRow?.(row);
    }
  }
  const failed = rows.filter((row) => row.failure).length;
  return { adapter: ADAPTER, rows, passed: rows.length - failed, failed };
}
