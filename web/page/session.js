// The one engine of the page: which model it has, what it is doing, what went wrong.

/** The engine's module, asked for once; index.html has it preloaded. */
export const anygpu = import("../anygpu/index.js");
// Whoever awaits it handles a failure; this keeps the browser from reporting it a second time.
anygpu.catch(() => {});

/**
 * Events: "change" when `state`, `task` or `error` did, "progress" while loading, "notice" with `detail` for what the
 * reader should hear about (a lost device, a full disk).
 */
export class Session extends EventTarget {
  /** @type {"empty" | "loading" | "ready" | "failed"} */
  state = "empty";
  /** What the engine is busy with: "generate", "benchmark", "check" or null. One at a time. */
  task = null;
  engine = null;
  /** What is open or being opened: `{ source, label, shipped, contextLength }`. */
  opened = null;
  progress = null;
  error = null;
  /** A lost device that is being rebuilt. */
  rebuilding = false;
  #abort = null;
  #turn = 0;

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  /**
   * Loads a model in place of the one that is there. Resolves when it is ready, or has failed or been cancelled: `state`
   * says which.
   */
  async open(request) {
    const turn = ++this.#turn;
    this.#abort?.abort();
    const abort = new AbortController();
    this.#abort = abort;
    const old = this.engine;
    Object.assign(this, { engine: null, opened: request, state: "loading", error: null, progress: null, rebuilding: false });
    this.#emit("change");
    try {
      // Both would rarely fit at once, so the old one goes first.
      await old?.dispose();
      const { Engine } = await anygpu;
      performance.mark("anygpu:load");
      const engine = await Engine.load(request.source, {
        contextLength: request.contextLength,
        signal: abort.signal,
        onProgress: (progress) => {
          if (turn !== this.#turn) return;
          this.progress = progress;
          this.#emit("progress");
        },
        onEvent: (event) => {
          if (turn === this.#turn) this.#event(event);
        },
      });
      if (turn !== this.#turn) {
        await engine.dispose();
        return;
      }
      Object.assign(this, { engine, state: "ready" });
      performance.mark("anygpu:ready");
    } catch (error) {
      if (turn !== this.#turn) return;
      Object.assign(this, { state: abort.signal.aborted ? "empty" : "failed", error: abort.signal.aborted ? null : error });
    }
    this.#emit("change");
  }

  /** Stops loading. */
  cancel() {
    if (this.state === "loading") this.#abort?.abort();
  }

  /** Says that no model can be loaded, and why. */
  fail(error) {
    Object.assign(this, { state: "failed", error });
    this.#emit("change");
  }

  #event(event) {
    if (event.type === "device-lost") this.rebuilding = true;
    if (event.type === "rebuilt") this.rebuilding = false;
    this.#emit("notice", event);
    this.#emit("change");
  }

  /** The engine, as soon as it is loaded. Rejects if it will not be. */
  ready(signal) {
    return new Promise((resolve, reject) => {
      const look = () => {
        const cancelled = Object.assign(new Error("stopped before the model was loaded"), { name: "Cancelled" });
        if (signal.aborted) done(reject, cancelled);
        else if (this.state === "ready") done(resolve, this.engine);
        else if (this.state === "failed") done(reject, this.error);
        else if (this.state === "empty") done(reject, cancelled);
      };
      const done = (settle, value) => {
        this.removeEventListener("change", look);
        signal.removeEventListener("abort", look);
        settle(value);
      };
      this.addEventListener("change", look);
      signal.addEventListener("abort", look);
      look();
    });
  }

  /** Runs `work` while nothing else does. */
  async busy(task, work) {
    if (this.task) throw new Error(`cannot start ${task} while ${this.task} runs`);
    this.task = task;
    this.#emit("change");
    try {
      return await work();
    } finally {
      this.task = null;
      this.#emit("change");
    }
  }

  /** The engine after an error that it does not outlive. */
  lost(error) {
    if (this.state !== "ready") return;
    const engine = this.engine;
    this.engine = null;
    engine?.dispose().catch(() => {});
    this.fail(error);
  }
}
