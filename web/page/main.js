// The page: views, dropping files, keys, and what the header says.

import { BenchmarkView } from "./benchmark.js";
import { missing, openShipped, session, wanted } from "./boot.js";
import { Chat } from "./chat.js";
import { CheckView } from "./check.js";
import { byId, h } from "./dom.js";
import { ModelView } from "./model.js";
import { panel } from "./panel.js";
import { button, loading, missingGpu, notify, problem } from "./parts.js";
import { tabs } from "./tabs.js";
import { notice } from "./words.js";

const EXAMPLES = ["What is a slice?", "How do I handle an error?", "What does the borrow checker do?"];

const chat = new Chat(session);
const settingsPanel = panel(session);
const model = new ModelView(session, { onLoad: () => views.select("chat", true) });
const benchmark = new BenchmarkView(session);
const check = new CheckView(session);
const views = tabs(document.querySelector("[role=tablist]"), (name) => {
  document.body.dataset.view = name;
  document.title = name === "chat" ? "anygpu" : `${document.getElementById(`tab-${name}`).textContent} · anygpu`;
  if (name === "model") model.shown();
});

// The header's one line, and the nine cells of the mark: they fill as a model loads and move while it works.

function headline() {
  const { state, task, rebuilding, progress, engine } = session;
  if (missing) return ["bad", "No WebGPU"];
  if (rebuilding) return ["warn", "GPU lost, rebuilding"];
  if (task === "generate") return ["busy", "Writing"];
  if (task) return ["busy", task === "check" ? "Check is running" : "Benchmark is running"];
  if (state === "ready") return ["good", `${engine.info.adapter.name}${engine.info.adapter.isCpu ? ", on the CPU" : ""}`];
  if (state === "failed") return ["bad", "No model"];
  if (state === "empty") return ["idle", "No model"];
  const share = progress?.totalBytes > 0 ? ` ${Math.floor((100 * progress.loadedBytes) / progress.totalBytes)} %` : "";
  return ["busy", progress?.phase === "compile" ? "Compiling" : `Loading${share}`];
}

const cells = [...document.querySelectorAll(".mark rect")];

function header() {
  const [kind, words] = headline();
  const state = byId("state");
  state.dataset.kind = kind;
  byId("state-text").textContent = words;
  state.title = words;
  const { progress } = session;
  const filling = session.state === "loading" && progress?.totalBytes > 0 ? Math.ceil((9 * progress.loadedBytes) / progress.totalBytes) : 0;
  document.body.dataset.task = session.task ?? (session.state === "loading" ? "loading" : "");
  cells.forEach((cell, i) => cell.classList.toggle("on", session.state === "loading" ? i < filling : i % 2 === 0));
}

// The welcome: what is loading or loaded, or why nothing is.

let shownFor = null;
let shown = [];
let loader = null;

function welcome() {
  const { state, opened, error, engine } = session;
  const now = [state, opened, engine, error];
  if (shown.length > 0 && now.every((value, i) => value === shown[i])) return;
  shown = now;
  const region = byId("loading");
  const name = engine?.info.model.name ?? opened?.label;
  region.hidden = state === "ready";
  byId("examples").hidden = Boolean(missing || state === "failed" || state === "empty" || !opened?.shipped);
  if (state !== "loading") loader = null;
  if (missing) {
    region.hidden = false;
    if (!region.firstChild) region.replaceChildren(missingGpu());
  } else if (state === "loading") {
    if (!loader || shownFor !== opened) {
      loader = loading(opened.label, () => session.cancel());
      shownFor = opened;
      region.replaceChildren(loader.element);
    }
    loader.update(session.progress);
  } else if (state === "failed") {
    const actions = [opened && button("Try again", () => session.open(opened)), !opened?.shipped && button("Load the model of this page", openShipped)];
    region.replaceChildren(problem(error, ...actions.filter(Boolean)));
  } else if (state === "empty") {
    region.replaceChildren(
      h(
        "div",
        { class: "card" },
        h("p", {}, wanted.has("model") && !opened ? "The Model tab shows what the linked model needs." : "No model is loaded."),
        h("div", { class: "actions" }, button("Load the model of this page", openShipped)),
      ),
    );
  } else {
    region.replaceChildren();
  }
  // A problem's own words stand where the introduction would push them out of sight.
  byId("welcome-text").hidden = Boolean(missing || state === "failed");
  byId("welcome-text").textContent =
    opened?.shipped && (state === "ready" || state === "loading")
      ? "A model of 6 million parameters that has read the Rust documentation comes with this page. It answers short questions about Rust, often wrongly. Nothing that you write leaves your machine. Drop a GGUF file anywhere here to run your own."
      : state === "ready"
        ? `${name} runs in this tab. Nothing that you write leaves your machine.`
        : "Nothing that you write leaves your machine. Drop a GGUF file anywhere on this page to run your own.";
}

let openedBefore = session.opened;
session.addEventListener("change", () => {
  // Another model did not write what stands there; the same one with another context did.
  if (session.opened !== openedBefore) {
    if (session.opened?.source !== openedBefore?.source) chat.clear();
    else chat.stop();
    openedBefore = session.opened;
  }
  if (session.state === "loading") {
    // They run on what is being replaced.
    benchmark.stop();
    check.stop();
  }
  header();
  welcome();
});
session.addEventListener("progress", () => {
  header();
  loader?.update(session.progress);
});
session.addEventListener("notice", ({ detail }) => notify(notice(detail)));
header();
welcome();

byId("examples").append(...EXAMPLES.map((text) => h("li", {}, button(text, () => {
  if (!session.task) chat.ask(text);
}))));

// Files dropped anywhere.

const dropping = byId("dropping");
const hasFile = (event) => event.dataTransfer?.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!hasFile(event)) return;
  event.preventDefault();
  dropping.hidden = false;
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) dropping.hidden = true;
});
addEventListener("drop", (event) => {
  dropping.hidden = true;
  if (!hasFile(event)) return;
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  views.select("model", false);
  model.pick(file);
});

addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (settingsPanel.closeOverlay()) return;
  chat.stop();
  benchmark.stop();
  check.stop();
});

// How the page was opened.

if (wanted.has("model")) {
  views.select("model", false);
  model.pick(wanted.get("model"));
} else if (matchMedia("(pointer: fine)").matches && document.activeElement === document.body && document.body.dataset.view === "chat") {
  byId("prompt").focus();
}
if (wanted.get("ask") && !wanted.has("model") && !missing) chat.ask(wanted.get("ask"));
