// The settings beside the conversation.

import { byId, h } from "./dom.js";
import { button } from "./parts.js";
import { NUMBERS, SETTINGS, allowed, reset, save, settings } from "./settings.js";

const WIDE = matchMedia("(min-width: 1080px)");

function number(name, { value, min, max, step, label, hint }, onValue) {
  const id = `setting-${name}`;
  const input = h("input", {
    type: "number",
    id,
    min,
    max,
    step: step < 1 ? "any" : step,
    inputmode: step < 1 ? "decimal" : "numeric",
    placeholder: value === null ? "auto" : null,
    "aria-describedby": `${id}-hint`,
    autocomplete: "off",
  });
  const note = h("span", { class: "hint", id: `${id}-hint` }, hint);
  input.addEventListener("input", () => {
    const found = input.value === "" && !input.validity.badInput ? null : Number(input.value || Number.NaN);
    const good = onValue(found);
    input.setAttribute("aria-invalid", String(!good));
    note.textContent = good ? hint : `${min} to ${max}${step < 1 ? "" : ", whole"}`;
  });
  return { input, element: h("div", { class: "setting" }, h("label", { for: id }, label), input, note) };
}

/** Fills the panel and returns how to show and hide it. */
export function panel(session) {
  const aside = byId("settings");
  const toggle = byId("show-settings");
  const inputs = {};
  const fields = NUMBERS.map((name) => {
    const field = number(name, SETTINGS[name], (value) => {
      const good = allowed(name, value);
      if (good) save({ [name]: value });
      return good;
    });
    inputs[name] = field.input;
    return field.element;
  });

  const system = h("textarea", { id: "setting-system", rows: 3, placeholder: "None" });
  system.addEventListener("input", () => save({ system: system.value }));

  // The context is part of what is allocated, so a change means loading again.
  let length = null;
  const context = number(
    "contextLength",
    { value: null, min: 64, max: 1048576, step: 1, label: "Context length", hint: "empty: what the model was made for" },
    (value) => {
      const good = value === null || (Number.isInteger(value) && value >= 64 && value <= 1048576);
      if (good) length = value;
      show();
      return good;
    },
  );
  const apply = button("Load again with it", () => session.open({ ...session.opened, contextLength: length }));
  const show = () => {
    apply.hidden = session.state !== "ready" || (session.opened.contextLength ?? null) === length;
    apply.disabled = session.task !== null;
  };
  context.element.append(apply);

  const fill = () => {
    for (const name of NUMBERS) {
      inputs[name].value = settings[name] ?? "";
      inputs[name].dispatchEvent(new Event("input"));
    }
    system.value = settings.system;
  };
  const close = button("Close", () => {
    open(false);
    toggle.focus();
  }, "quiet");
  aside.append(
    h("div", { class: "head" }, h("h3", {}, "Settings"), close),
    h("div", { class: "setting wide" }, h("label", { for: "setting-system" }, "System prompt"), system),
    h("div", { class: "settings-grid" }, fields, context.element),
    button("Back to the defaults", () => {
      reset();
      fill();
    }, "quiet"),
  );
  fill();

  const open = (yes) => {
    aside.hidden = !yes;
    toggle.setAttribute("aria-expanded", String(yes));
  };
  toggle.addEventListener("click", () => {
    open(aside.hidden);
    if (!aside.hidden && !WIDE.matches) system.focus();
  });
  open(WIDE.matches);
  WIDE.addEventListener("change", () => open(WIDE.matches));
  session.addEventListener("change", () => {
    // A model opened elsewhere brings its own length.
    if (session.state === "ready") {
      length = session.opened.contextLength ?? null;
      context.input.value = length ?? "";
    }
    show();
  });
  show();

  /** Closes the panel where it covers the conversation; says whether it did. */
  return {
    closeOverlay() {
      if (WIDE.matches || aside.hidden) return false;
      open(false);
      toggle.focus();
      return true;
    },
  };
}
