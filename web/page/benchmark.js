// The benchmark view: the native suites on the loaded model.

import { missing } from "./boot.js";
import { figures, figuresOf } from "./chart.js";
import { byId, download, eachFrame, h } from "./dom.js";
import { bytes, duration, significant, test } from "./figures.js";
import { problem } from "./parts.js";

const SUITES = [
  ["prefill", "Prefill", "reading a prompt", true],
  ["decode", "Decode", "one token at a time", true],
  ["load", "Load", "file to GPU", true],
  ["memory", "Memory", "the most in use", true],
  ["batch", "Batch", "8 and 32 sequences", false],
  ["kernels", "Kernels", "each one alone", false],
];

const cell = (value, words) => h("td", { class: value == null ? "n none" : "n" }, value == null ? "–" : words(value));

export class BenchmarkView {
  #abort = null;
  #rows = [];
  #report = null;

  constructor(session) {
    this.session = session;
    this.state = byId("benchmark-state");
    this.run = byId("run-benchmark");
    this.save = byId("save-report");
    byId("suites").append(
      ...SUITES.map(([name, title, hint, on]) =>
        h("label", {}, h("input", { type: "checkbox", name: "suite", value: name, checked: on }), " ", h("span", {}, title, " ", h("small", {}, hint))),
      ),
    );
    this.draw = figures(byId("charts"));
    this.show = eachFrame(() => this.draw(figuresOf(this.#rows, test, significant)));
    byId("benchmark-form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#abort) this.stop();
      else this.#start();
    });
    this.save.addEventListener("click", () => download("report.json", "application/json", `${JSON.stringify(this.#report, null, 2)}\n`));
    session.addEventListener("change", () => this.update());
    this.update();
  }

  /** Cases are not broken off: the engine stops behind the one that runs. */
  stop() {
    if (!this.#abort || this.#abort.signal.aborted) return;
    this.#abort.abort();
    this.state.textContent = "Stopping after the case that runs now.";
    this.update();
  }

  update() {
    const { state, task } = this.session;
    const running = this.#abort !== null;
    const stopping = running && this.#abort.signal.aborted;
    this.run.textContent = stopping ? "Stopping" : running ? "Cancel" : "Run";
    this.run.classList.toggle("stop", running);
    this.run.disabled = !running && (state !== "ready" || task !== null);
    if (running) return;
    const reason = missing
      ? "This browser has no WebGPU. The Chat tab says what to do."
      : state === "loading"
        ? "The model is still loading."
        : state !== "ready"
          ? "No model is loaded."
          : task
            ? "The model is busy."
            : "";
    if (reason || this.state.dataset.reason) {
      this.state.textContent = reason;
      this.state.dataset.reason = reason;
    }
  }

  async #start() {
    const suites = [...byId("suites").querySelectorAll("input:checked")].map((input) => input.value);
    if (suites.length === 0) {
      this.state.textContent = "Choose at least one suite.";
      return;
    }
    const abort = new AbortController();
    this.#abort = abort;
    this.#rows = [];
    this.#report = null;
    this.save.disabled = true;
    byId("benchmark-error").replaceChildren();
    byId("benchmark-rows").replaceChildren();
    byId("benchmark-results").hidden = false;
    this.show();
    this.state.textContent = "Running: first the answers of each case are checked, then it is timed.";
    this.state.dataset.reason = "";
    const began = performance.now();
    const { engine } = this.session;
    try {
      await this.session.busy("benchmark", async () => {
        this.#report = await engine.benchmark({ suites, signal: abort.signal, onRow: (row) => this.#row(row, began) });
      });
      this.save.disabled = false;
      this.#finish(`Finished in ${duration(performance.now() - began)}: ${this.#rows.length} rows, ${this.#failed()}.`);
    } catch (error) {
      const rows = `${this.#rows.length} row${this.#rows.length === 1 ? "" : "s"}`;
      if (abort.signal.aborted || error?.name === "Cancelled") {
        this.#finish(`Cancelled after ${rows}.`);
      } else {
        this.#finish(`Ended early after ${rows}.`);
        byId("benchmark-error").replaceChildren(problem(error));
        if (error?.name === "DeviceLost") this.session.lost(error);
      }
    }
  }

  #finish(words) {
    this.#abort = null;
    this.update();
    this.state.textContent = words;
    this.state.dataset.reason = "";
  }

  #failed() {
    const failed = this.#rows.filter((row) => row.check != null && row.check !== "ok").length;
    const checked = this.#rows.filter((row) => row.check != null).length;
    if (failed > 0) return `${failed} with a wrong answer`;
    return checked > 0 ? "all answers that were checked agree" : "no answer was checked";
  }

  #row(row, began) {
    this.#rows.push(row);
    const bad = row.check != null && row.check !== "ok";
    byId("benchmark-rows").append(
      h(
        "tr",
        {},
        h("td", {}, row.suite),
        h("th", { scope: "row" }, test(row)),
        cell(row.tokens_per_second, significant),
        cell(row.p50_ms ?? row.load_ms, significant),
        cell(row.p95_ms, significant),
        cell(row.peak_memory_bytes, bytes),
        h("td", { class: bad ? "bad" : row.check ? "good" : "none" }, row.check ?? "–"),
      ),
    );
    if (!this.#abort?.signal.aborted) {
      const rows = `${this.#rows.length} row${this.#rows.length === 1 ? "" : "s"}`;
      this.state.textContent = `Running for ${duration(performance.now() - began)}: ${rows} so far.`;
    }
    this.show();
  }
}
