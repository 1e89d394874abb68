// The check view: every kernel against its reference, and the words for a driver bug report.

import { anygpu, missing } from "./boot.js";
import { bugReport } from "./bug-report.js";
import { byId, eachFrame, h } from "./dom.js";
import { duration, error as nmse, significant } from "./figures.js";
import { problem } from "./parts.js";

export class CheckView {
  #abort = null;
  #rows = [];
  #waiting = [];
  #result = null;
  #profile = "";

  constructor(session) {
    this.session = session;
    this.state = byId("check-state");
    this.run = byId("run-check");
    this.copy = byId("copy-check");
    this.show = eachFrame(() => this.#show());
    byId("check-form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#abort) this.stop();
      else this.#start();
    });
    byId("only-failed").addEventListener("change", ({ target }) => {
      byId("check-rows").classList.toggle("only-failed", target.checked);
    });
    this.copy.addEventListener("click", () => this.#copy());
    session.addEventListener("change", () => this.update());
    this.update();
  }

  stop() {
    this.#abort?.abort();
  }

  update() {
    const running = this.#abort !== null;
    this.run.textContent = running ? "Cancel" : "Run";
    this.run.classList.toggle("stop", running);
    // Needs no model, only that nothing else keeps the GPU busy.
    this.run.disabled = !running && (missing || this.session.task !== null || this.session.state === "loading");
    if (missing) this.state.textContent = "This browser has no WebGPU. The Chat tab says what to do.";
  }

  async #start() {
    const abort = new AbortController();
    this.#abort = abort;
    this.#rows = [];
    this.#waiting = [];
    this.#result = null;
    this.#profile = new FormData(byId("check-form")).get("profile");
    this.copy.disabled = true;
    byId("check-error").replaceChildren();
    byId("check-rows").replaceChildren();
    byId("by-kernel").replaceChildren();
    byId("check-results").hidden = false;
    this.state.textContent = "Opening the GPU";
    const began = performance.now();
    const words = (how) => `${how} after ${duration(performance.now() - began)}: ${this.#rows.length} cases, ${this.#failures()} failed.`;
    try {
      await this.session.busy("check", async () => {
        const { check } = await anygpu;
        this.#result = await check({
          profile: this.#profile || undefined,
          signal: abort.signal,
          onRow: (row) => {
            this.#rows.push(row);
            this.#waiting.push(row);
            this.show();
          },
        });
      });
      this.#finish(words("Finished"));
    } catch (error) {
      this.#finish(words(abort.signal.aborted || error?.name === "Cancelled" ? "Cancelled" : "Ended early"));
      if (!abort.signal.aborted && error?.name !== "Cancelled") byId("check-error").replaceChildren(problem(error));
    }
  }

  #failures() {
    return this.#rows.filter((row) => row.failure).length;
  }

  #finish(words) {
    this.#abort = null;
    this.#show();
    this.state.textContent = words;
    this.copy.disabled = this.#rows.length === 0;
    this.update();
  }

  #show() {
    byId("check-rows").append(
      ...this.#waiting.splice(0).map((row) =>
        h(
          "tr",
          { class: row.failure ? "failed" : null },
          h("th", { scope: "row" }, row.name),
          h("td", { class: "n" }, nmse(row.nmse)),
          h("td", { class: "n" }, significant(row.ms)),
          h("td", { class: row.failure ? "bad" : "good" }, row.failure ? `fail: ${row.failure}` : "pass"),
        ),
      ),
    );
    const kernels = new Map();
    for (const row of this.#rows) {
      const kernel = row.kernel ?? row.name.split(" ")[0];
      const { count = 0, failed = 0 } = kernels.get(kernel) ?? {};
      kernels.set(kernel, { count: count + 1, failed: failed + (row.failure ? 1 : 0) });
    }
    byId("by-kernel").replaceChildren(
      h(
        "ul",
        { class: "kernels", "aria-label": "Kernels" },
        [...kernels].map(([name, { count, failed }]) =>
          h("li", { class: failed ? "failed" : null }, h("span", { class: "file" }, name), h("span", { class: failed ? "bad" : "good" }, failed ? `${failed} of ${count} fail` : `${count} pass`)),
        ),
      ),
    );
    if (this.#abort) this.state.textContent = `${this.#rows.length} cases so far, ${this.#failures()} failed.`;
  }

  async #copy() {
    const { engine } = this.session;
    const text = bugReport({
      adapter: this.#result?.adapter ?? engine?.info?.adapter ?? {},
      rows: this.#rows,
      profile: this.#profile || "full",
      complete: this.#result !== null,
      agent: await userAgent(),
      version: engine?.info?.version,
    });
    try {
      await navigator.clipboard.writeText(text);
      this.copy.textContent = "Copied";
    } catch {
      // Where the clipboard is closed to pages, the text itself.
      const area = h("textarea", { class: "report-text", rows: 12, readonly: true, "aria-label": "Bug report" });
      area.value = text;
      byId("check-error").replaceChildren(area);
      area.select();
      this.copy.textContent = "Copy the text below";
    }
    setTimeout(() => (this.copy.textContent = "Copy for a bug report"), 3000);
  }
}

/** Browser and system with their full versions where the browser tells them. */
async function userAgent() {
  try {
    const { fullVersionList, platform, platformVersion, architecture } = await navigator.userAgentData.getHighEntropyValues([
      "fullVersionList",
      "platformVersion",
      "architecture",
    ]);
    const brand = fullVersionList.filter(({ brand }) => !/not.?a.?brand/i.test(brand)).map(({ brand, version }) => `${brand} ${version}`);
    return `${brand.join(", ")} on ${platform} ${platformVersion} ${architecture}`.trim();
  } catch {
    return navigator.userAgent;
  }
}
