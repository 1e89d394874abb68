import { Engine } from "/anygpu/index.js";

export async function start({ gguf, profile, contextLength }) {
  const engine = await Engine.load(gguf, { cache: false, profile, contextLength });
  const { version } = await (await fetch("/anygpu/package.json")).json();
  const { adapter } = engine.info;
  return {
    version,
    runsOn: adapter.isCpu ? "WebGPU on the CPU" : "WebGPU",
    adapter,
    async generate({ ids }, count, onToken) {
      const generation = engine.generate({ tokens: ids }, { temperature: 0, maxTokens: count });
      let text = "";
      for await (const piece of generation) {
        onToken();
        text += piece;
      }
      // The last tokens may have no text of their own.
      onToken();
      const { tokens, generatedTokens } = await generation.metrics;
      return { tokens, text, written: generatedTokens };
    },
    stop: () => engine.dispose(),
  };
}
