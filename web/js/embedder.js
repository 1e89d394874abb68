// Texts to vectors: an encoder as a plan.

import { CORE } from "./core.js";
import { Encoder, loadEncoder } from "./encoder.js";

/** An encoder on the GPU. */
export class Embedder extends Encoder {
  /** Loads an encoder onto the GPU. */
  static async load(source, options = {}) {
    const { dtype, pooling, normalize, maxTokens, batchTokens, profile } = options;
    return loadEncoder(Embedder, CORE, source, { dtype, pooling, normalize, maxTokens, batchTokens, profile }, options);
  }

  /** GPU memory that the encoder takes now and took at most, and the size of the worker's WASM memory. */
  memory() {
    return this.request("memory");
  }
}
