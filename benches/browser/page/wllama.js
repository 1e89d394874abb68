import { Wllama } from "/wllama/index.min.js";

export async function start({ gguf, contextLength }) {
  const logs = [];
  const keep = (...words) => logs.push(words.join(" "));
  const wllama = new Wllama({ default: "/wllama/wasm/wllama.wasm" }, { logger: { debug: keep, log: keep, warn: keep, error: keep } });
  const model = await (await fetch(gguf)).blob();
  await wllama.loadModel([model], { n_ctx: contextLength, n_parallel: 1, warmup: false, cache_idle_slots: false });
  const all = logs.join("\n");
  // Where llama.cpp says that the weights lie, such as "CPU 11.01 MiB".
  const buffers = Array.from(all.matchAll(/load_tensors:\s+(\S+) model buffer size =\s+(\S+ MiB)/g), ([, device, size]) => `${device} ${size}`);
  const onGpu = buffers.some((buffer) => !buffer.startsWith("CPU"));
  const { version } = await (await fetch("/wllama/package.json")).json();
  console.log(all);
  return {
    version: `${version} (llama.cpp ${Wllama.getLibllamaVersion()})`,
    runsOn: `${onGpu ? "WebGPU" : "CPU"} (${buffers.join(", ")}), ${wllama.getNumThreads()} threads`,
    async generate({ ids, text: prompt }, count, onToken) {
      const stream = await wllama.createCompletion({ prompt, max_tokens: count, temperature: 0, top_k: 1, ignore_eos: true, cache_prompt: false, stream: true });
      let text = "";
      let timings;
      let chunks = 0;
      for await (const chunk of stream) {
        timings = chunk.timings ?? timings;
        const choice = chunk.choices?.[0];
        // The last one only says why it ended.
        if (!choice || choice.finish_reason) continue;
        text += choice.text;
        chunks++;
        onToken();
      }
      if (timings && timings.prompt_n !== ids.length) throw new Error(`the prompt has ${timings.prompt_n} tokens, expected ${ids.length}`);
      return { text, written: timings?.predicted_n ?? chunks, timings };
    },
    stop: () => wllama.exit(),
  };
}
