// Texts to vectors by Burn: an encoder as a Burn module, in a worker with a WASM of its own.

import { Encoder, loadEncoder } from "./encoder.js";
import { failure } from "./errors.js";

/** @type {import("./client.js").Program} */
const BURN = {
  worker: () => new Worker(new URL("./burn-worker.js", import.meta.url), { type: "module", name: "anygpu-burn" }),
  wasm: () => fetch(new URL("./anygpu_burn_bg.wasm", import.meta.url)),
};

const KERNELS = ["own", "burn"];

/** An encoder of Burn's on the GPU. */
export class BurnEmbedder extends Encoder {
  /** Loads an encoder onto the GPU. */
  static async load(source, options = {}) {
    const { kernels = "own", pooling, normalize, maxTokens, batchTokens } = options;
    if (!KERNELS.includes(kernels)) {
      throw failure("Shape", `kernels: found ${JSON.stringify(kernels)}, expected one of ${JSON.stringify(KERNELS)}`);
    }
    return loadEncoder(BurnEmbedder, BURN, source, { kernels, pooling, normalize, maxTokens, batchTokens }, options);
  }
}
