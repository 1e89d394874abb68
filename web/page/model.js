// The model view: what is loaded, opening another with its memory plan first, what is cached, the GPU.

import { SHIPPED, missing, openShipped } from "./boot.js";
import { byId, facts, h } from "./dom.js";
import { bytes, parameters, significant } from "./figures.js";
import { button, loading, missingGpu, notify, problem } from "./parts.js";
import { anygpu } from "./session.js";
import { explain } from "./words.js";

const number = (value) => (Number.isFinite(value) ? value.toLocaleString("en") : null);

/** Names of features, whether the engine gives a list or what is on. */
export function features(adapter) {
  const all = adapter?.features ?? [];
  return Array.isArray(all) ? all : Object.keys(all).filter((name) => all[name]);
}

function modelFacts(model) {
  return [
    ["Name", model.name],
    ["Weights", model.dtype?.toUpperCase()],
    ["Parameters", parameters(model.parameters)],
    ["Made for", model.contextLength && `${number(model.contextLength)} tokens of context`],
  ];
}

export class ModelView {
  #plan = null;

  constructor(session, { onLoad }) {
    this.session = session;
    this.onLoad = onLoad;
    session.addEventListener("change", () => this.#current());
    session.addEventListener("progress", () => this.loader?.update(session.progress));
    byId("file").addEventListener("change", ({ target }) => {
      if (target.files[0]) this.pick(target.files[0]);
      // The same file chosen again is a change too.
      target.value = "";
    });
    byId("url-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.pick(byId("url").value);
    });
    this.#current();
  }

  /** Called when the view is shown. */
  shown() {
    this.#current();
    this.#cached();
    this.#adapter();
  }

  /** Shows what a file or URL would take, with a button to go on. */
  async pick(source, contextLength = null) {
    const label = typeof source === "string" ? decodeURIComponent(source.split(/[?#]/)[0].split("/").pop()) || source : source.name;
    const region = byId("plan");
    region.hidden = false;
    if (missing) {
      region.replaceChildren(missingGpu());
      return;
    }
    const turn = {};
    this.#plan = turn;
    const close = () => {
      region.hidden = true;
      region.replaceChildren();
    };
    region.replaceChildren(h("div", { class: "card" }, h("h3", {}, label), h("p", { class: "progress-words", role: "status" }, "Reading the header")));
    try {
      const { Engine } = await anygpu;
      const plan = await Engine.plan(source, { contextLength: contextLength ?? undefined });
      if (this.#plan !== turn) return;
      const card = this.#planCard({ source, label, contextLength, plan, close });
      region.replaceChildren(card);
      card.focus();
    } catch (error) {
      if (this.#plan !== turn) return;
      const actions = [button("Close", close)];
      if (contextLength !== null) actions.unshift(button("Plan with the model's own context", () => this.pick(source)));
      region.replaceChildren(h("div", { class: "planned" }, h("h3", {}, label), problem(error, ...actions)));
    }
    region.scrollIntoView({ block: "nearest" });
  }

  #planCard({ source, label, contextLength, plan, close }) {
    const { model = {}, weightBytes, cacheBytes, totalBytes, fits, adapter } = plan;
    const memory = plan.memoryBytes ?? adapter?.memoryBytes ?? null;
    const rest = Math.max(0, totalBytes - weightBytes - cacheBytes);
    const whole = Math.max(totalBytes, memory ?? 0);
    const part = (name, size) => {
      const piece = h("span", { class: `part ${name}` });
      piece.style.flexGrow = String(size / whole);
      return piece;
    };
    const bar = h(
      "div",
      { class: "plan-bar", "aria-hidden": "true" },
      part("weights", weightBytes),
      part("context", cacheBytes),
      rest > 0 && part("rest", rest),
      memory > totalBytes && part("free", memory - totalBytes),
    );
    const verdict =
      fits === false
        ? h("p", { class: "verdict bad" }, plan.reason ?? "More than this adapter offers. A shorter context or a smaller file would do.")
        : memory
          ? h("p", { class: "verdict good" }, `Fits into the ${bytes(memory)} of this adapter.`)
          : h("p", { class: "verdict" }, "Fits into the limits of this adapter. How much memory it has, the browser does not say; if it is less, loading stops with an error and nothing breaks.");
    const length = h("input", { type: "number", id: "plan-context", min: 64, max: 1048576, step: 1, inputmode: "numeric", placeholder: model.contextLength ?? "auto", value: contextLength ?? "" });
    const again = h("form", { class: "row" }, h("label", { for: "plan-context" }, "Context length"), length, h("button", { type: "submit" }, "Plan again"));
    again.addEventListener("submit", (event) => {
      event.preventDefault();
      this.pick(source, length.value === "" ? null : Number(length.value));
    });
    const go = button(fits === false ? "Try anyway" : "Load it", () => {
      close();
      this.session.open({ source, label, contextLength });
      this.onLoad();
    }, fits === false ? "" : "primary");
    return h(
      "div",
      { class: "card planned", tabindex: -1 },
      h("h3", {}, label),
      facts(modelFacts(model)),
      bar,
      facts([
        [h("span", {}, h("i", { class: "key weights", "aria-hidden": "true" }), "Weights"), bytes(weightBytes)],
        [h("span", {}, h("i", { class: "key context", "aria-hidden": "true" }), "Context cache"), bytes(cacheBytes)],
        rest > 0 && [h("span", {}, h("i", { class: "key rest", "aria-hidden": "true" }), "Working memory"), bytes(rest)],
        ["Together on the GPU", h("strong", {}, bytes(totalBytes))],
        ["Largest buffer offered", limit(adapter, plan, "maxBufferBytes") && bytes(limit(adapter, plan, "maxBufferBytes"))],
        ["On", adapter?.name],
      ].filter(Boolean)),
      verdict,
      this.session.engine && h("p", { class: "hint" }, "The model that is loaded now is freed first."),
      again,
      h("div", { class: "actions" }, go, button("Not now", close)),
    );
  }

  #current() {
    const { state, opened, engine, error } = this.session;
    const region = byId("current");
    const shipped = button(`Load ${SHIPPED.label}`, () => openShipped());
    if (missing) {
      region.replaceChildren(missingGpu());
    } else if (state === "loading") {
      if (this.loading !== opened) {
        this.loading = opened;
        this.loader = loading(opened.label, () => this.session.cancel());
        region.replaceChildren(h("div", { class: "card" }, this.loader.element));
      }
      return;
    } else if (state === "failed") {
      const again = opened && button("Try again", () => this.session.open(opened));
      region.replaceChildren(problem(error, ...[again, !opened?.shipped && shipped].filter(Boolean)));
    } else if (state === "ready") {
      const { model = {} } = engine.info ?? {};
      const memory = h("span", {}, "…");
      Promise.resolve(engine.memory())
        .then((m) => (memory.textContent = `${bytes(m.currentBytes)}, at most ${bytes(m.peakBytes)} so far`))
        .catch(() => (memory.textContent = "unknown"));
      region.replaceChildren(
        h(
          "section",
          { class: "card", "aria-label": "Loaded model" },
          h("h3", {}, model.name ?? opened.label),
          facts([
            ["From", opened.shipped ? "this page" : opened.label],
            ...modelFacts(model).slice(1),
            ["Context", opened.contextLength && `${number(opened.contextLength)} tokens`],
            ["GPU memory", memory],
          ]),
          !opened.shipped && h("div", { class: "actions" }, shipped),
        ),
      );
    } else {
      region.replaceChildren(h("div", { class: "card" }, h("p", { class: "lead" }, "No model is loaded."), h("div", { class: "actions" }, shipped)));
    }
    this.loading = null;
    this.loader = null;
  }

  async #cached() {
    const region = byId("cached");
    try {
      const { cache } = await anygpu;
      const [entries, estimate] = await Promise.all([cache.list(), cache.estimate()]);
      if (estimate?.quota > 0) {
        const share = Math.max(1, Math.round((100 * estimate.usage) / estimate.quota));
        byId("storage").textContent = `Models from a URL are kept here, so that the next visit needs no download. ${bytes(estimate.usage)} of ${bytes(estimate.quota)} that the browser allows are in use${estimate.usage > 0 ? ` (${share} %)` : ""}.`;
      }
      region.replaceChildren(
        entries.length === 0
          ? h("p", { class: "hint" }, "Nothing yet.")
          : h("ul", { class: "cached" }, entries.map((entry) => this.#entry(entry))),
      );
    } catch (error) {
      region.replaceChildren(h("p", { class: "hint" }, `Nothing can be kept here: ${explain(error).message}`));
    }
  }

  #entry(entry) {
    const name = decodeURIComponent(entry.url?.split(/[?#]/)[0].split("/").pop() ?? entry.key);
    const when = entry.storedAt ? new Date(entry.storedAt).toLocaleDateString() : null;
    const remove = h("button", {
      type: "button",
      "aria-label": `Remove ${name}`,
      onclick: async () => {
        remove.disabled = true;
        try {
          const { cache } = await anygpu;
          await cache.remove(entry.key);
        } catch (error) {
          notify({ kind: "warn", text: `${name} could not be removed.`, message: error.message });
        }
        await this.#cached();
        byId("cached-title").focus();
      },
    }, "Remove");
    const open = entry.url && h("button", { type: "button", "aria-label": `Open ${name}`, onclick: () => this.pick(entry.url) }, "Open");
    return h(
      "li",
      {},
      h("div", {}, h("span", { class: "file" }, name), h("span", { class: "hint" }, [bytes(entry.bytes), entry.complete === false && "not complete", when].filter(Boolean).join(" · "))),
      h("div", { class: "actions" }, open, remove),
    );
  }

  async #adapter() {
    const region = byId("adapter");
    try {
      if (missing) throw Object.assign(new Error("navigator.gpu is missing"), { name: "Adapter" });
      const { Engine } = await anygpu;
      const adapter = this.session.engine?.info?.adapter ?? (await Engine.adapter({}));
      region.replaceChildren(adapterFacts(adapter));
    } catch (error) {
      region.replaceChildren(h("p", { class: "lead" }, `None: ${explain(error).message}`));
    }
  }
}

function limit(adapter, plan, name) {
  return plan.limits?.[name] ?? adapter?.limits?.[name];
}

/** What an adapter is and may be used for. */
export function adapterFacts(adapter) {
  const limits = adapter.limits ?? {};
  const { min, max } = adapter.subgroup ?? {};
  const on = features(adapter);
  return facts([
    ["Name", adapter.name],
    ["Driver", adapter.driver],
    ["Features", on.length > 0 ? h("ul", { class: "tags" }, on.map((name) => h("li", {}, name))) : "none beyond the baseline"],
    ["Subgroup", min && (min === max ? `${min} lanes` : `${min} to ${max} lanes`)],
    ["Largest buffer", limits.maxBufferBytes && bytes(limits.maxBufferBytes)],
    ["Largest binding", limits.maxBindingBytes && bytes(limits.maxBindingBytes)],
    ["Storage buffers a stage", limits.maxStorageBuffers && significant(limits.maxStorageBuffers)],
    ["Workgroup", limits.maxWorkgroupInvocations && `${limits.maxWorkgroupInvocations} invocations, ${bytes(limits.maxWorkgroupBytes)}`],
  ]);
}
