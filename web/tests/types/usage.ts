// What a program in TypeScript writes against the package. Compiled, never run: each line that must not compile says so.

import { Embedder, Engine, cache, check } from "../../js/index.js";
import type { EncoderSource, EngineEvent, Metrics, Progress, Source } from "../../js/index.js";
import { BurnEmbedder } from "../../js/burn.js";
import { openai } from "../../js/openai.js";

export async function loads(file: File, bytes: ArrayBuffer, signal: AbortSignal): Promise<void> {
  const sources: Source[] = ["model.gguf", new URL("https://example.org/model.gguf"), { url: "model.gguf", sha256: "00", bytes: 1 }, file, new Blob(), bytes];
  for (const source of sources) {
    const plan = await Engine.plan(source, { contextLength: 2048, slots: 1, profile: "webgpu-baseline" });
    const fits: boolean = plan.fits;
    const named: string = plan.model.name;
    if (!fits) throw new Error(`${named}: ${plan.totalBytes}`);
  }
  const engine = await Engine.load(file, {
    onProgress: ({ phase, secondsLeft }: Progress) => console.log(phase === "download", secondsLeft),
    onEvent(event: EngineEvent) {
      if (event.type === "device-lost") console.log(event.message);
      // @ts-expect-error: a rebuilt engine has nothing to say
      if (event.type === "rebuilt") console.log(event.message);
    },
    signal,
    cache: false,
  });
  const { currentBytes, peakBytes } = await engine.memory();
  console.log(currentBytes < peakBytes, engine.info.model.name);
  await engine.dispose();
  // @ts-expect-error: engines are loaded
  new Engine();
  // @ts-expect-error: a number is no source
  await Engine.load(1);
}

export async function writes(engine: Engine, signal: AbortSignal): Promise<Metrics> {
  const generation = engine.generate([{ role: "user", content: "What is a slice?" }], { temperature: 0, maxTokens: 8, stop: ["."], seed: 1, signal });
  let text = "";
  for await (const piece of generation) text += piece;
  // @ts-expect-error: no such role
  engine.generate([{ role: "robot", content: text }]);
  // @ts-expect-error: no such option
  engine.generate(text, { temprature: 0 });
  const metrics = await engine.generate(text, { raw: true }).metrics;
  // @ts-expect-error: there may be no first token
  const first: number = metrics.firstTokenMs;
  console.log(first);
  return metrics;
}

export async function embeds(file: File, signal: AbortSignal): Promise<number> {
  const sources: EncoderSource[] = ["bge-small.gguf", file, { folder: "all-MiniLM-L6-v2/" }, { folder: new URL("https://example.org/e5"), sha256: "00" }];
  const embedder = await Embedder.load(sources[2], { dtype: "f16", pooling: "mean", maxTokens: 128, signal, onProgress: ({ phase }: Progress) => console.log(phase) });
  const vectors = await embedder.embed(["one", "two"], { prompt: "query", split: true, signal, onProgress: ({ done, total }) => console.log(done / total) });
  const first: Float32Array = vectors[0];
  // @ts-expect-error: a list of texts
  await embedder.embed("one");
  // @ts-expect-error: no such way
  await Embedder.load(file, { pooling: "max" });
  // @ts-expect-error: encoders are loaded
  new Embedder();
  await embedder.dispose();
  return first.length - embedder.dimensions + Object.keys(embedder.info.prompts).length;
}

export async function embedsByBurn(file: File, signal: AbortSignal): Promise<number> {
  const embedder = await BurnEmbedder.load({ folder: "all-MiniLM-L6-v2/" }, { kernels: "burn", signal, onProgress: ({ phase }: Progress) => console.log(phase) });
  const vectors = await embedder.embed(["one", "two"], { prefix: "query: ", onProgress: ({ done, total }) => console.log(done / total) });
  const first: Float32Array = vectors[0];
  const kernels: "own" | "burn" = embedder.info.kernels;
  // @ts-expect-error: no such kernels
  await BurnEmbedder.load(file, { kernels: "cuda" });
  // @ts-expect-error: matrices stay as the file has them
  await BurnEmbedder.load(file, { dtype: "f16" });
  // @ts-expect-error: what Burn takes of the GPU is Burn's to know
  await embedder.memory();
  await embedder.dispose();
  return first.length - embedder.dimensions + kernels.length;
}

export async function completes(engine: Engine): Promise<string | null> {
  const { chat } = openai(engine);
  const messages = [{ role: "user" as const, content: "Hello" }];
  const whole = await chat.completions.create({ messages, max_tokens: 8 });
  const stream = await chat.completions.create({ messages, stream: true });
  for await (const chunk of stream) console.log(chunk.choices[0]?.delta.content ?? "");
  // @ts-expect-error: a completion that is not streamed has no chunks
  for await (const chunk of whole) console.log(chunk);
  return whole.choices[0]?.message.content ?? null;
}

export async function measures(engine: Engine): Promise<number> {
  const report = await engine.benchmark({ suites: ["decode"], onRow: (row) => console.log(row.tokens_per_second) });
  const { passed, failed, rows } = await check({ profile: "webgpu-baseline", onRow: (row) => console.log(row.nmse) });
  console.log(passed + failed === rows.length);
  for (const kept of await cache.list()) await cache.remove(kept.key);
  return report.rows.length + (await cache.estimate()).quota;
}
