// Elements without innerHTML: whatever a model writes stays text.

/**
 * An element. `attributes` whose value is a function become event listeners (`onclick: f`), `true` an empty attribute,
 * `false`, `null` and `undefined` none. Children are nodes or text; arrays are flattened, empty ones left out.
 *
 * @param {string} name
 * @param {Record<string, unknown>} [attributes]
 * @param {...unknown} children
 */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (typeof value === "function") element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  add(element, children);
  return element;
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value != null) element.setAttribute(key, String(value));
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child != null && child !== false && child !== "") element.append(child);
  }
}

/** The element with an id; a page without it is broken, so say which. */
export function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`index.html has no element #${id}`);
  return element;
}

/** Terms and what they are, as a `dl`. Pairs without a value are left out. */
export function facts(pairs) {
  return h(
    "dl",
    { class: "facts" },
    pairs
      .filter(([, value]) => value != null && value !== "")
      .map(([term, value]) => h("div", {}, h("dt", {}, term), h("dd", {}, value))),
  );
}

/** Calls `f` at most once a frame; in a hidden tab, where there are no frames, four times a second. */
export function eachFrame(f) {
  let waiting = false;
  const run = () => {
    // The frame of a tab that was hidden meanwhile comes late.
    if (!waiting) return;
    waiting = false;
    f();
  };
  document.addEventListener("visibilitychange", () => document.hidden && run());
  return () => {
    if (waiting) return;
    waiting = true;
    if (document.hidden) setTimeout(run, 250);
    else requestAnimationFrame(run);
  };
}

/** Gives the reader a file. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
