import { AutoModelForCausalLM, BaseStreamer, Tensor, env } from "/transformers/transformers.min.js";

class Arrivals extends BaseStreamer {
  constructor(onToken) {
    super();
    this.onToken = onToken;
    this.isPrompt = true;
  }
  put() {
    // The prompt comes first.
    if (!this.isPrompt) this.onToken();
    this.isPrompt = false;
  }
  end() {}
}

export async function start({ onnx, dtype }) {
  env.allowRemoteModels = false;
  env.allowLocalModels = true;
  env.localModelPath = "/onnx/";
  env.useBrowserCache = false;
  env.backends.onnx.wasm.wasmPaths = {
    mjs: new URL("/ort/ort-wasm-simd-threaded.asyncify.mjs", location.href).href,
    wasm: new URL("/ort/ort-wasm-simd-threaded.asyncify.wasm", location.href).href,
  };
  const model = await AutoModelForCausalLM.from_pretrained(onnx, { device: "webgpu", dtype, local_files_only: true });
  return {
    version: env.version,
    runsOn: `WebGPU, ${dtype}`,
    async generate({ ids }, count, onToken) {
      const input = (values) => new Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
      const output = await model.generate({
        input_ids: input(ids),
        attention_mask: input(ids.map(() => 1)),
        max_new_tokens: count,
        min_new_tokens: count,
        do_sample: false,
        streamer: new Arrivals(onToken),
      });
      const tokens = Array.from(output.data, Number).slice(ids.length);
      return { tokens, written: tokens.length };
    },
    stop: () => model.dispose(),
  };
}
