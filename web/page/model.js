// The model view: what is loaded, opening another with its memory plan first, what is cached, the GPU.

import { SHIPPED, anygpu, missing, openShipped } from "./boot.js";
import { byId, facts, h } from "./dom.js";
import { bytes, parameters, significant } from "./figures.js";
import { button, loading, missingGpu, notify, problem } from "./parts.js";
import { explain, features } from "./words.js";

const number = (value) => (Number.isFinite(value) ? value.toLocaleString("en") : null);

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
  #shown = [];

  constructor(session, { onLoad }) {
    this.session = session;
    this.onLoad = onLoad;
    session.addEventListener("change", () => {
      // A button must not go from under the focus because a reply has ended.
      const now = [session.state, session.opened, session.engine, session.error];
      if (now.some((value, i) => value !== this.#shown[i])) this.#current();
      this.#shown = now;
    });
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
    // What to do then stands in the view already.
    if (missing) return;
    const region = byId("plan");
    region.hidden = false;
    const turn = {};
    this.#plan = turn;
    const close = () => {
      region.hidden = true;
      region.replaceChildren();
    };
    region.replaceChildren(h("div", { class: "card" }, h("h3", {}, label), h("p", { class: "progress-words", role: "status" }, "Reading the header")));
    try {
      const { Engine } = await anygpu;
      const plan = await Engine.plan(source, { contextLength });
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
    const { model, weightBytes, cacheBytes, totalBytes, fits, reason, adapter, limits } = plan;
    const part = (name, size) => {
      const piece = h("span", { class: `part ${name}` });
      piece.style.flexGrow = String(size / totalBytes);
      return piece;
    };
    const key = (name, words) => h("span", {}, h("i", { class: `key ${name}`, "aria-hidden": "true" }), words);
    // A plan that does not fit has no sizes: what could not be placed is in its reason.
    const memory = totalBytes > 0 && [
      h("div", { class: "plan-bar", "aria-hidden": "true" }, part("weights", weightBytes), part("context", cacheBytes)),
      facts([
        [key("weights", "Weights"), bytes(weightBytes)],
        [key("context", "Context cache"), bytes(cacheBytes)],
        ["Together", h("strong", {}, bytes(totalBytes))],
      ]),
    ];
    const verdict = fits
      ? h(
          "p",
          { class: "verdict" },
          "It fits the limits of this GPU; some tens of megabytes to work in come on top. How much memory there is, a browser does not say: where it is less, loading ends with an error and nothing else happens.",
        )
      : h("div", { class: "verdict bad" }, h("p", {}, "It does not fit this GPU."), h("p", { class: "words" }, reason ?? ""), h("p", {}, "A shorter context or a smaller file of the same model would do."));
    const length = h("input", { type: "number", id: "plan-context", min: 64, max: 1048576, step: 1, inputmode: "numeric", placeholder: plan.contextLength ?? model.contextLength ?? "auto", value: contextLength ?? "" });
    const again = h("form", { class: "row" }, h("label", { for: "plan-context" }, "Context length"), length, h("button", { type: "submit" }, "Plan again"));
    again.addEventListener("submit", (event) => {
      event.preventDefault();
      this.pick(source, length.value === "" ? null : Number(length.value));
    });
    const go = button(fits ? "Load it" : "Try anyway", () => {
      close();
      this.session.open({ source, label, contextLength });
      this.onLoad();
    }, fits ? "primary" : "");
    return h(
      "div",
      { class: "card planned", tabindex: -1 },
      h("h3", {}, label),
      facts(modelFacts(model)),
      memory,
      verdict,
      this.session.engine && h("p", { class: "hint" }, "The model that is loaded now is freed first."),
      h("div", { class: "actions" }, go, button("Not now", close)),
      again,
      facts([
        ["GPU", adapter.name],
        ["Its largest buffer", bytes(limits.maxBufferBytes)],
        ["Its largest binding", bytes(limits.maxBindingBytes)],
      ]),
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
      const { model } = engine.info;
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
            ["Context", engine.info.contextLength && `${number(engine.info.contextLength)} tokens`],
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
      h("div", {}, h("span", { class: "file" }, name), h("span", { class: "hint" }, [entry.complete ? bytes(entry.bytes) : `${bytes(entry.storedBytes)} of ${bytes(entry.bytes)}, not complete`, when].filter(Boolean).join(" · "))),
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

/** What an adapter is and may be used for. */
export function adapterFacts(adapter) {
  const { limits, isCpu } = adapter;
  const { min, max } = adapter.subgroup;
  const on = features(adapter);
  return facts([
    ["Name", adapter.name],
    ["Kind", isCpu && "a processor that stands in for a GPU, and is slow"],
    ["Features", on.length > 0 ? h("ul", { class: "tags" }, on.map((name) => h("li", {}, name))) : "none beyond the baseline"],
    ["Subgroup", min && (min === max ? `${min} lanes` : `${min} to ${max} lanes`)],
    ["Largest buffer", limits.maxBufferBytes && bytes(limits.maxBufferBytes)],
    ["Largest binding", limits.maxBindingBytes && bytes(limits.maxBindingBytes)],
    ["Storage buffers a stage", limits.maxStorageBuffers && significant(limits.maxStorageBuffers)],
    ["Workgroup", limits.maxWorkgroupInvocations && `${limits.maxWorkgroupInvocations} invocations, ${bytes(limits.maxWorkgroupBytes)}`],
  ]);
}
