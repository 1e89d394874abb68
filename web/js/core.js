// The program of `anygpu`: see [`Program`] in client.js.

/** @type {import("./client.js").Program} */
export const CORE = {
  worker: () => new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "anygpu" }),
  wasm: () => fetch(new URL("./anygpu_web_bg.wasm", import.meta.url)),
};
