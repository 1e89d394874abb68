/** Names of this package's errors: the library's kinds. */
export type ErrorName =
  | "Format"
  | "Unsupported"
  | "Shape"
  | "Adapter"
  | "OutOfMemory"
  | "DeviceLost"
  | "Tokenizer"
  | "Io"
  | "Cancelled";

/**
 * Where a model's bytes come from. A URL is fetched by ranges, several at a time, resumed after a break, and kept in the
 * origin's private file system; `bytes` and `sha256` are checked where given. An `ArrayBuffer` is copied: for a large
 * model pass a `File` or `Blob`.
 */
export type Source =
  | string
  | URL
  | { url: string | URL; sha256?: string; bytes?: number }
  | File
  | Blob
  | ArrayBuffer
  | ArrayBufferView<ArrayBuffer>;

/** How far loading is. */
export interface Progress {
  /** Bytes from the network, bytes onto the GPU, or pipelines being compiled. */
  phase: "download" | "load" | "compile";
  loadedBytes?: number;
  totalBytes?: number;
  /** Null until it is known. */
  bytesPerSecond?: number | null;
  secondsLeft?: number | null;
  /** Whether the bytes come from the cache. */
  fromCache: boolean;
}

export type EngineEvent =
  /** The device is gone. The engine is rebuilt at the next use, or now where it is in use. */
  | { type: "device-lost"; message: string }
  /** The model is loaded again, and what ran goes on. */
  | { type: "rebuilt" }
  /** The model is not kept for the next time; loading goes on. */
  | { type: "cache-failed"; message: string };

export interface PlanOptions {
  /** Positions a sequence can have; without it what the model was made for. */
  contextLength?: number;
  /** Sequences side by side that memory is taken for. */
  slots?: number;
  /** A stored profile to clip the device to, such as "webgpu-baseline". */
  profile?: string;
  /** Whether a URL is taken from the cache, and kept in it by `load`; true unless said otherwise. */
  cache?: boolean;
  signal?: AbortSignal;
}

export interface LoadOptions extends PlanOptions {
  onProgress?(progress: Progress): void;
  onEvent?(event: EngineEvent): void;
  /** The most decode steps submitted ahead of the one whose token is awaited, as far as they are 40 ms of work; 24 unless said otherwise. */
  ahead?: number;
}

/** What an adapter, or a device on it, can do. */
export interface AdapterInfo {
  name: string;
  backend: "browser";
  features: {
    f16: boolean;
    subgroups: boolean;
    integerDot: boolean;
    timestamps: boolean;
    immediates: boolean;
    pipelineCache: boolean;
  };
  limits: {
    maxBufferBytes: number;
    maxBindingBytes: number;
    maxStorageBuffers: number;
    maxWorkgroupsPerDimension: number;
    maxWorkgroupInvocations: number;
    maxWorkgroupSize: [number, number, number];
    maxWorkgroupBytes: number;
    minStorageOffsetAlignment: number;
    minUniformOffsetAlignment: number;
  };
  subgroup: { min: number; max: number };
  /** Whether a CPU plays the GPU. */
  isCpu: boolean;
}

/** What a model is and would take, from its header. */
export interface Plan {
  model: {
    name: string;
    architecture: string;
    dtype: string;
    parameters: number;
    contextLength: number | null;
    layers: number | null;
    /** Bytes of its tensors in the file. */
    tensorBytes: number;
  };
  contextLength: number | null;
  slots: number;
  /** Bytes on the GPU; not there where it does not fit. Activations come on top, some tens of megabytes. */
  weightBytes?: number;
  cacheBytes?: number;
  totalBytes?: number;
  /** Whether the device's limits hold it. Browsers do not say how much memory there is. */
  fits: boolean;
  /** Why it does not fit. */
  reason?: string;
  limits: { maxBufferBytes: number; maxBindingBytes: number };
  adapter: AdapterInfo;
}

export interface EngineInfo {
  adapter: AdapterInfo;
  model: {
    name: string;
    dtype: string;
    layers: number;
    vocabulary: number;
    contextLength: number;
    hasChatTemplate: boolean;
  };
  /** Positions that a conversation can have. */
  contextLength: number;
  memory: { weightBytes: number; bytes: number };
  loadMs: number;
}

export interface Memory {
  /** GPU memory of the engine's own buffers. */
  currentBytes: number;
  peakBytes: number;
  /** Size of the worker's WASM memory. */
  wasmBytes: number;
}

export interface Message {
  role: "system" | "user" | "assistant" | "tool";
  content: string;
}

/** How text is written. The defaults are those of the command line. */
export interface GenerateOptions {
  /** 0 always takes the likeliest token; 0.7 unless said otherwise. */
  temperature?: number;
  /** Keep this many likeliest tokens; 0 keeps all. 40 unless said otherwise. */
  topK?: number;
  /** Keep the likeliest tokens that reach this probability together; 1 keeps all. 0.95 unless said otherwise. */
  topP?: number;
  /** Keep tokens at least this times as likely as the likeliest; 0 keeps all. 0.05 unless said otherwise. */
  minP?: number;
  /** Makes recent tokens less likely; 1 leaves them, as is usual. */
  repetitionPenalty?: number;
  /** How many recent tokens the penalty sees, at most 256. */
  repetitionWindow?: number;
  /** The same seed on the same adapter gives the same text; without it every run differs. */
  seed?: number;
  /** The most tokens; without it as many as the context holds. */
  maxTokens?: number;
  /** Texts that end the answer and are not part of it. */
  stop?: string | string[];
  signal?: AbortSignal;
  /** Takes a string as the text to continue, in place of a question. */
  raw?: boolean;
}

export interface Metrics {
  promptTokens: number;
  /** Tokens of the prompt that were computed: what the last turn left in the cache is not among them. */
  prefilledTokens: number;
  generatedTokens: number;
  firstTokenMs: number | null;
  /** After the first token. */
  tokensPerSecond: number | null;
  finish: "stop" | "length" | "cancelled";
  /** The ids of what was written. */
  tokens: number[];
  /** Messages at the start that were left out so that the rest fits the context. */
  forgottenMessages: number;
  /** How often the device was lost and replaced meanwhile. */
  rebuilt: number;
}

/** Text as it is written. Writing begins at once, read or not; a loop that is left early stops it. */
export interface Generation extends AsyncIterable<string> {
  /** Resolves when the text has ended. Rejects as the loop does; with "Cancelled" where the signal ended it. */
  metrics: Promise<Metrics>;
}

export interface BenchmarkOptions {
  /** "kernels", "load", "prefill", "decode", "batch", "streams", "memory"; all unless said otherwise. */
  suites?: string[];
  /** Prompt lengths. */
  prompts?: number[];
  /** Tokens in the cache before generation. */
  depths?: number[];
  /** Sequences side by side. */
  batches?: number[];
  batchDepth?: number;
  /** Tokens to generate. */
  tokens?: number;
  /** Runs of each case. */
  repeats?: number;
  /** Whether answers are checked; true unless said otherwise. */
  check?: boolean;
  /** The model's name in the report. */
  model?: string;
  onRow?(row: ReportRow): void;
  signal?: AbortSignal;
}

/** A case of a benchmark, with the keys of `report.json`. */
export interface ReportRow {
  engine: string;
  suite: string;
  model: string;
  dtype: string;
  batch: number;
  n_prompt: number;
  n_gen: number;
  n_depth: number;
  tokens_per_second: number | null;
  p50_ms: number | null;
  p95_ms: number | null;
  p99_ms: number | null;
  peak_memory_bytes: number | null;
  bandwidth_share: number | null;
  check: string | null;
  [key: string]: unknown;
}

/** `report.json`, the same as natively. */
export interface Report {
  schema: number;
  environment: Record<string, unknown>;
  rows: ReportRow[];
}

/** A model on the GPU, in a worker of its own. */
export declare class Engine {
  private constructor();

  /**
   * Loads a model onto the GPU.
   *
   * Rejects with "Format" or "Unsupported" for a file that cannot be loaded, "OutOfMemory" where it does not fit, "Adapter"
   * without WebGPU, "Io" where the source cannot be read, "Cancelled" where the signal fired.
   */
  static load(source: Source, options?: LoadOptions): Promise<Engine>;

  /** What a model is and would take on the GPU, from its header alone. */
  static plan(source: Source, options?: PlanOptions): Promise<Plan>;

  /** The browser's adapter, clipped to a stored profile where one is named. Rejects with "Adapter" without WebGPU. */
  static adapter(options?: { profile?: string }): Promise<AdapterInfo>;

  /** As it was when the model was loaded. */
  readonly info: EngineInfo;

  memory(): Promise<Memory>;

  /**
   * Writes the answer to a list of messages or to one question, by the model's chat template; with `raw` what follows a
   * text; or what follows token ids. A later turn of the same conversation computes only what is new. One thing at a
   * time: a second call waits for the first.
   *
   * @example
   * const messages = [{ role: "user", content: "What is a slice?" }];
   * for await (const piece of engine.generate(messages, { maxTokens: 64 })) output.append(piece);
   */
  generate(input: Message[] | string | { tokens: Iterable<number> }, options?: GenerateOptions): Generation;

  /** Forgets the conversation's text; another one may begin without it. */
  forget(): Promise<void>;

  /** Runs the benchmark's suites on this model. */
  benchmark(options?: BenchmarkOptions): Promise<Report>;

  /** Frees all GPU memory and ends the worker. */
  dispose(): Promise<void>;
}

export interface CheckRow {
  /** Kernel and shape. */
  name: string;
  kernel: string;
  /** The largest normalised mean squared error of its outputs; null where it did not run. */
  nmse: number | null;
  /** What is wrong, or null. */
  failure: string | null;
  ms: number;
}

export interface CheckOptions {
  profile?: string;
  /** Only cases with this in their name. */
  filter?: string;
  onRow?(row: CheckRow): void;
  signal?: AbortSignal;
}

/**
 * Where an encoder comes from: a GGUF file (`bert`) as any other source, or a folder on a server with `model.safetensors`,
 * `config.json` and `tokenizer.json`, and, where they are there, sentence-transformers' `modules.json`,
 * `1_Pooling/config.json`, `sentence_bert_config.json` and `config_sentence_transformers.json`. `sha256` and `bytes` are
 * those of the weights.
 */
export type EncoderSource = Source | { folder: string | URL; sha256?: string; bytes?: number };

export interface EmbedderOptions {
  /** What matrices become at load; without it they stay as the file has them. */
  dtype?: "f32" | "f16" | "q8_0";
  /** How the rows of a text become its vector; without it as the files say, or their mean. */
  pooling?: "mean" | "cls" | "last";
  /** Whether vectors have length 1; without it as the files say, or yes. */
  normalize?: boolean;
  /** Tokens that are read of a text; without it as the files say. */
  maxTokens?: number;
  /** The most tokens computed together; 4096 unless said otherwise. */
  batchTokens?: number;
  /** A stored profile to clip the device to, such as "webgpu-baseline". */
  profile?: string;
  /** Whether weights of a URL are taken from the cache and kept in it; true unless said otherwise. */
  cache?: boolean;
  onProgress?(progress: Progress): void;
  onEvent?(event: EngineEvent): void;
  signal?: AbortSignal;
}

export interface EmbedderInfo {
  adapter: AdapterInfo;
  model: {
    dtype: string;
    /** Numbers of a vector. */
    dimensions: number;
    layers: number;
    vocabulary: number;
    /** Tokens of the longest text that is not cut, those that start and end it among them. */
    maxTokens: number;
    pooling: "mean" | "cls" | "last";
    normalized: boolean;
  };
  /** What the files want in front of texts, by name, such as "query" and "passage". */
  prompts: Record<string, string>;
  memory: { weightBytes: number; bytes: number };
  loadMs: number;
}

export interface EmbedOptions {
  /** What goes in front of every text, such as "query: " for E5. */
  prefix?: string;
  /** The same by a name of `info.prompts`. */
  prompt?: string;
  /** Cut longer texts into parts and take the mean of their vectors, instead of reading the beginning. */
  split?: boolean;
  /** Told of texts as they are done, at most twenty times a second. */
  onProgress?(progress: { done: number; total: number }): void;
  signal?: AbortSignal;
}

/** An encoder of the BERT family on the GPU, in a worker of its own. */
export declare class Embedder {
  private constructor();

  /**
   * Loads an encoder onto the GPU.
   *
   * Rejects as `Engine.load` does.
   */
  static load(source: EncoderSource, options?: EmbedderOptions): Promise<Embedder>;

  /** As it was when the model was loaded. */
  readonly info: EmbedderInfo;

  /** Numbers of a vector. */
  readonly dimensions: number;

  memory(): Promise<Memory>;

  /**
   * The vectors of texts, in their order, as views of one buffer. Any number of texts of any length: they are packed and
   * computed in batches. One thing at a time: a second call waits for the first.
   *
   * @example
   * const [query, ...texts] = await embedder.embed(["pets", "The cat sleeps.", "Shares fell."]);
   * const scores = texts.map((text) => text.reduce((sum, value, i) => sum + value * query[i], 0));
   */
  embed(texts: readonly string[], options?: EmbedOptions): Promise<Float32Array<ArrayBuffer>[]>;

  /** Frees all GPU memory and ends the worker. */
  dispose(): Promise<void>;
}

/** Runs every kernel against its reference on this browser and GPU. */
export declare function check(
  options?: CheckOptions,
): Promise<{ adapter: AdapterInfo; rows: CheckRow[]; passed: number; failed: number }>;

export interface CachedModel {
  key: string;
  url: string;
  bytes: number;
  /** Of those, what is there. */
  storedBytes: number;
  complete: boolean;
  /** Milliseconds since 1970; null while it is not complete. */
  storedAt: number | null;
}

/** The models that are kept in the origin's private file system. */
export declare const cache: {
  list(): Promise<CachedModel[]>;
  /** Removes the model of a key or a URL. Rejects with "Io" while an engine writes it. */
  remove(keyOrUrl: string): Promise<void>;
  /** Bytes that this origin uses and may use. */
  estimate(): Promise<{ usage: number; quota: number }>;
};
