// Pieces that several views show: a problem with what to do about it, loading, the missing WebGPU.

import { byId, h } from "./dom.js";
import { duration, bytes } from "./figures.js";
import { explain, progress as progressWords, withoutWebGpu } from "./words.js";

/** A button. */
export function button(label, onclick, kind = "") {
  return h("button", { type: "button", class: kind || null, onclick }, label);
}

/** An error as a card: what happened, the engine's own words, what to do. */
export function problem(error, ...actions) {
  if (error?.name === "Adapter") return missingGpu({ gpu: Boolean(navigator.gpu) }, error.message);
  const { title, message, advice } = explain(error);
  return h(
    "div",
    { class: "card problem", role: "alert" },
    h("p", { class: "problem-title" }, title),
    h("p", { class: "words" }, message),
    advice.length > 0 && h("ul", {}, advice.map((line) => h("li", {}, line))),
    actions.length > 0 && h("div", { class: "actions" }, actions),
  );
}

/** Why there is no GPU and what to do about it in this browser and others. */
export function missingGpu(found = {}, message = "") {
  const { title, why, browsers } = withoutWebGpu(found);
  const [own, ...others] = browsers;
  const steps = ({ steps }) => h("ol", {}, steps.map((step) => h("li", {}, step)));
  return h(
    "div",
    { class: "card problem missing", role: "alert" },
    h("p", { class: "problem-title" }, title),
    h("p", {}, why),
    message && h("p", { class: "words" }, message),
    h("p", { class: "browser" }, own.name),
    steps(own),
    others.map((other) => h("details", {}, h("summary", {}, other.name), steps(other))),
  );
}

/** A line above the views that the reader may dismiss. Good news goes by itself. */
export function notify({ kind, text, message, topic }) {
  const line = h(
    "div",
    { class: `notice ${kind}` },
    h("p", {}, text, message && h("span", { class: "words" }, ` ${message}`)),
    h("button", { type: "button", class: "quiet", "aria-label": "Dismiss", onclick: () => line.remove() }, "×"),
  );
  // News of the same thing takes the place of what was said before.
  for (const old of byId("notices").children) if (topic && old.dataset.topic === topic) old.remove();
  if (topic) line.dataset.topic = topic;
  byId("notices").append(line);
  if (kind === "good") setTimeout(() => line.remove(), 8000);
}

/** The progress of loading, kept up to date: `update(progress)` as often as it likes. */
export function loading(label, onCancel) {
  const bar = h("progress", { "aria-label": `Loading ${label}`, max: 1 });
  const words = h("p", { class: "progress-words" }, progressWords(null));
  const rate = h("p", { class: "progress-rate" });
  const element = h(
    "div",
    { class: "loader" },
    h("p", { class: "loader-title" }, "Loading ", h("strong", {}, label)),
    bar,
    h("div", { class: "loader-words" }, h("div", {}, words, rate), onCancel && button("Cancel", onCancel)),
  );
  const update = (p) => {
    if (p?.totalBytes > 0) bar.value = p.loadedBytes / p.totalBytes;
    else bar.removeAttribute("value");
    words.textContent = progressWords(p);
    rate.textContent = p
      ? [
          p.bytesPerSecond > 0 && p.phase !== "compile" && `${bytes(p.bytesPerSecond)}/s`,
          p.secondsLeft > 0 && Number.isFinite(p.secondsLeft) && `${duration(1000 * Math.max(1, Math.ceil(p.secondsLeft)))} left`,
        ]
          .filter(Boolean)
          .join(" · ")
      : "";
  };
  return { element, update };
}
