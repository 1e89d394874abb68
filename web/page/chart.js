// Horizontal bars as inline SVG, drawn for the width there is, so that letters never shrink.

import { svg } from "./dom.js";

const ROW = 26;
const NARROW = 480;

/**
 * @param {{ title: string, unit: string, bars: { label: string, value: number, words: string, bad?: boolean }[] }} figure
 * @param {number} width in CSS pixels
 * @param {number} longest letters of the longest label in all charts that stand together, so that their bars begin alike
 */
export function bars({ title, unit, bars: all }, width, longest) {
  const narrow = width < NARROW;
  // About 7 px a letter; on a phone a label stands above its bar.
  const left = narrow ? 0 : Math.min(longest * 7 + 12, width * 0.45);
  const right = Math.max(...all.map((bar) => bar.words.length)) * 7.5 + 10;
  const length = Math.max(width - left - right, 20);
  const pitch = narrow ? ROW + 16 : ROW;
  const most = Math.max(...all.map((bar) => bar.value), Number.MIN_VALUE);
  const words = all.map((bar) => `${bar.label}: ${bar.words} ${unit}`).join("; ");
  const height = all.length * pitch;
  return svg(
    "svg",
    { class: "chart", role: "img", "aria-label": `${title}. ${words}`, viewBox: `0 0 ${width} ${height}`, width, height },
    all.map((bar, i) => {
      const top = i * pitch + (narrow ? 16 : 0);
      const extent = Math.max((bar.value / most) * length, 2);
      return [
        svg("text", { class: "bar-label", x: 0, y: narrow ? top - 3 : top + ROW / 2 + 4 }, clip(bar.label, narrow ? width : left)),
        svg("rect", { class: bar.bad ? "bar bad" : "bar", x: left, y: top + 5, width: extent, height: ROW - 10, rx: 2 }),
        svg("text", { class: "bar-words", x: left + extent + 8, y: top + ROW / 2 + 4 }, bar.words),
      ];
    }),
  );
}

function clip(text, width) {
  const fits = Math.floor(width / 7);
  return text.length <= fits ? text : `${text.slice(0, Math.max(fits - 1, 1))}…`;
}

/**
 * Charts that are redrawn as rows come and as the width changes.
 *
 * @param {HTMLElement} parent
 */
export function figures(parent) {
  let shown = [];
  let width = 0;
  const draw = () => {
    if (width < 1) return;
    const longest = Math.max(...shown.flatMap((figure) => figure.bars.map((bar) => bar.label.length)));
    parent.replaceChildren(
      ...shown.map((figure) => {
        const element = document.createElement("figure");
        const caption = document.createElement("figcaption");
        caption.textContent = `${figure.title}, ${figure.unit}`;
        element.append(caption, bars(figure, width, longest));
        return element;
      }),
    );
  };
  new ResizeObserver(([entry]) => {
    const found = Math.floor(entry.contentRect.width);
    if (found === width) return;
    width = found;
    draw();
  }).observe(parent);
  return (wanted) => {
    shown = wanted;
    draw();
  };
}

const MEANING = {
  prefill: ["Prefill: reading a prompt", "tokens a second"],
  decode: ["Decode: one new token at a time", "tokens a second"],
  batch: ["Batch: several sequences at once", "tokens a second of all together"],
  kernels: ["Kernels that take longest", "ms, half of the runs took no longer"],
  load: ["Load: until the weights lie on the GPU", "ms"],
};
/** Of a model's hundred kernels, those worth a bar. */
const KERNELS = 12;

/** What to draw of a report's rows: a figure a suite, in the order in which suites came. */
export function figuresOf(rows, test, number) {
  const suites = new Map();
  for (const row of rows) suites.set(row.suite, [...(suites.get(row.suite) ?? []), row]);
  const found = [];
  for (const [suite, all] of suites) {
    if (!MEANING[suite]) continue;
    const [title, unit] = MEANING[suite];
    const value = (row) => (suite === "load" ? row.load_ms : suite === "kernels" ? row.p50_ms : row.tokens_per_second);
    let bars = all
      .filter((row) => Number.isFinite(value(row)))
      .map((row) => ({ label: test(row), value: value(row), words: number(value(row)), bad: row.check != null && row.check !== "ok" }));
    if (suite === "kernels") bars = bars.sort((a, b) => b.value - a.value).slice(0, KERNELS);
    if (bars.length > 0) found.push({ title, unit, bars });
  }
  return found;
}
