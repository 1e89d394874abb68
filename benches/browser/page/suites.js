// The native suites in a browser: the same rows as `bench`.

import { Engine } from "/anygpu/index.js";

export async function start({ gguf, profile, contextLength }) {
  const query = new URLSearchParams(location.search);
  const list = (name) => query.get(name)?.split(",").filter(Boolean);
  const numbers = (name) => list(name)?.map(Number);
  const ahead = Number(query.get("ahead")) || undefined;
  const engine = await Engine.load(gguf, { cache: false, profile, contextLength, ahead });
  const report = await engine.benchmark({
    suites: list("suites"),
    prompts: numbers("prompts"),
    depths: numbers("depths"),
    tokens: Number(query.get("tokens") ?? 128),
    repeats: Number(query.get("repeats") ?? 5),
    check: query.get("check") !== "false",
    onRow: (row) => console.log(JSON.stringify(row)),
  });
  await engine.dispose();
  return { report };
}
