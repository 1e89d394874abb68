import type { AdapterInfo, EmbedderInfo, EmbedderOptions, EmbedOptions, EncoderSource } from "./index.js";

/** The options of `Embedder` that Burn's modules have too, and which kernels they run on. */
export interface BurnEmbedderOptions extends Omit<EmbedderOptions, "dtype" | "profile"> {
  /** This package's kernels on Burn's tensors, or Burn's own; "own" unless said otherwise. */
  kernels?: "own" | "burn";
}

export interface BurnEmbedderInfo {
  adapter: AdapterInfo;
  model: Omit<EmbedderInfo["model"], "dtype">;
  kernels: "own" | "burn";
  /** What the files want in front of texts, by name, such as "query" and "passage". */
  prompts: Record<string, string>;
  loadMs: number;
}

/**
 * An encoder of the BERT family as a module of Burn (https://burn.dev) on the GPU, in a worker of its own: a second
 * implementation of what `Embedder` does, in F32.
 */
export declare class BurnEmbedder {
  private constructor();

  /**
   * Loads an encoder onto the GPU.
   *
   * Rejects as `Embedder.load` does.
   *
   * @example
   * const embedder = await BurnEmbedder.load({ folder: "/models/all-MiniLM-L6-v2/" }, { kernels: "burn" });
   * const [vector] = await embedder.embed(["The cat sleeps."]);
   */
  static load(source: EncoderSource, options?: BurnEmbedderOptions): Promise<BurnEmbedder>;

  /** As it was when the model was loaded. */
  readonly info: BurnEmbedderInfo;

  /** Numbers of a vector. */
  readonly dimensions: number;

  /** The vectors of texts, in their order, as views of one buffer; see `Embedder.embed`. */
  embed(texts: readonly string[], options?: EmbedOptions): Promise<Float32Array<ArrayBuffer>[]>;

  /** Frees all GPU memory and ends the worker. */
  dispose(): Promise<void>;
}
