// Runs before anything else of the page: the model loads while the rest is still being fetched.

import { anygpu, Session } from "./session.js";

export { anygpu };

/** The model in the page's own folder. */
export const SHIPPED = {
  source: new URL("../models/anygpu-rust-6m-f16.gguf", import.meta.url).href,
  label: "anygpu-rust 6M",
  shipped: true,
};

/** `?model=URL` opens the page on another model, `?ask=TEXT` with a question. */
export const wanted = new URLSearchParams(location.search);

export const session = new Session();

/** Opens the shipped model. */
export function openShipped() {
  return session.open(SHIPPED);
}

// Without WebGPU the page says so instead of loading something that cannot run.
export const missing = !navigator.gpu;

if (!missing && !wanted.has("model")) openShipped();
