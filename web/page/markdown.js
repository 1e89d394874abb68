// The part of Markdown that models write, as elements. Nothing becomes HTML: text is text, and a link is one only to http(s).

import { h } from "./dom.js";

const FENCE = /^ {0,3}(```+|~~~+)\s*([\w+#.-]*)/;
const HEADING = /^(#{1,6})\s+(.*?)\s*#*$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const QUOTE = /^>\s?(.*)$/;
const RULE = /^ {0,3}([-*_])(\s*\1){2,}\s*$/;

/**
 * Blocks of a text, each with the offset where it starts. The last one may still grow as text arrives.
 *
 * @param {string} text
 * @returns {{ kind: string, start: number, text?: string, level?: number, language?: string, ordered?: boolean,
 *   first?: number, items?: { depth: number, text: string }[] }[]}
 */
export function parse(text) {
  const blocks = [];
  let open = null;
  let fence = null;
  let at = 0;
  const close = () => {
    open = null;
  };
  const begin = (block) => {
    open = { start: at, ...block };
    blocks.push(open);
  };
  for (const line of text.split("\n")) {
    const mark = FENCE.exec(line);
    if (fence) {
      // A fence closes with at least as many of the marks that opened it, and nothing behind them.
      if (mark && mark[1].startsWith(fence) && line.trim() === mark[1]) {
        fence = null;
        close();
      } else {
        open.text += open.lines++ ? `\n${line}` : line;
      }
    } else if (mark) {
      fence = mark[1];
      begin({ kind: "code", language: mark[2], text: "", lines: 0 });
    } else if (line.trim() === "") {
      // A list goes on behind an empty line if another item follows.
      if (open?.kind === "list") open.gap = true;
      else close();
    } else if (RULE.test(line) && open?.kind !== "paragraph") {
      begin({ kind: "rule" });
      close();
    } else if (HEADING.test(line)) {
      const [, marks, title] = HEADING.exec(line);
      begin({ kind: "heading", level: marks.length, text: title });
      close();
    } else if (ITEM.test(line)) {
      const [, indent, bullet, rest] = ITEM.exec(line);
      const ordered = /\d/.test(bullet);
      const depth = Math.min(Math.floor(indent.replaceAll("\t", "    ").length / 2), 5);
      if (open?.kind !== "list" || (depth === 0 && ordered !== open.ordered)) {
        begin({ kind: "list", ordered, first: ordered ? Number.parseInt(bullet, 10) : 1, items: [] });
      }
      open.gap = false;
      open.items.push({ depth, text: rest });
    } else if (QUOTE.test(line)) {
      const [, rest] = QUOTE.exec(line);
      if (open?.kind === "quote") open.text += `\n${rest}`;
      else begin({ kind: "quote", text: rest });
    } else if (open?.kind === "list" && !open.gap) {
      open.items.at(-1).text += `\n${line.trim()}`;
    } else if (open?.kind === "paragraph") {
      open.text += `\n${line}`;
    } else {
      begin({ kind: "paragraph", text: line });
    }
    at += line.length + 1;
  }
  return blocks;
}

// Lengths are bounded, so that no text makes the search for a closing mark quadratic in a long answer.
const INLINE = new RegExp(
  [
    /(`{1,4})([^`].{0,1000}?)\1(?!`)/,
    /\*\*(?=\S)(.{0,1000}?\S)\*\*/,
    /(?<![\w*])\*(?=[^\s*])([^*]{0,1000}?[^\s*])\*(?![\w*])/,
    /(?<!\w)_(?=[^\s_])([^_]{0,1000}?[^\s_])_(?!\w)/,
    /\[([^\][]{1,500})\]\(([^\s()]{1,2000})\)/,
    /(https?:\/\/[^\s<>()"'`]{1,2000}[^\s<>()"'`.,;:!?])/,
  ]
    .map((part) => part.source)
    .join("|"),
  "gs",
);

/** Text with its emphasis, code and links, as nodes. */
export function inline(text, depth = 0) {
  const nodes = [];
  let done = 0;
  for (const found of text.matchAll(INLINE)) {
    const [whole, , code, strong, star, underscore, label, target, bare] = found;
    const inner = (part) => (depth < 4 ? inline(part, depth + 1) : part);
    if (found.index > done) nodes.push(text.slice(done, found.index));
    if (code !== undefined) nodes.push(h("code", {}, code.trim() || code));
    else if (strong !== undefined) nodes.push(h("strong", {}, inner(strong)));
    else if (star !== undefined || underscore !== undefined) nodes.push(h("em", {}, inner(star ?? underscore)));
    else if (bare !== undefined) nodes.push(link(bare, bare));
    else nodes.push(link(target, label) ?? whole);
    done = found.index + whole.length;
  }
  if (done < text.length) nodes.push(text.slice(done));
  return nodes;
}

function link(target, label) {
  if (!/^https?:\/\//i.test(target)) return null;
  return h("a", { href: target, rel: "noopener noreferrer nofollow", target: "_blank" }, label);
}

function element(block) {
  switch (block.kind) {
    case "code":
      // Focusable, so that a keyboard can scroll a long line.
      return h(
        "pre",
        { tabindex: 0, role: "region", "aria-label": block.language ? `Code, ${block.language}` : "Code" },
        h("code", {}, block.text),
      );
    case "heading":
      // A turn is an h3. Models skip levels, an outline must not: all are h4 and differ in looks only.
      return h("h4", { class: `level-${block.level}` }, inline(block.text));
    case "quote":
      return h("blockquote", {}, inline(block.text));
    case "rule":
      return h("hr");
    case "list":
      return list(block);
    default:
      return h("p", {}, inline(block.text));
  }
}

function list(block) {
  const make = (first) => (block.ordered ? h("ol", { start: first === 1 ? null : first }) : h("ul"));
  const root = make(block.first);
  const levels = [root];
  for (const item of block.items) {
    while (levels.length > item.depth + 1) levels.pop();
    while (levels.length < item.depth + 1 && levels.at(-1).lastElementChild) {
      const nested = make(1);
      levels.at(-1).lastElementChild.append(nested);
      levels.push(nested);
    }
    levels.at(-1).append(h("li", {}, inline(item.text)));
  }
  return root;
}

/**
 * Where text must be parsed again when more of it comes: the last block of its complete lines. What an incomplete line is
 * going to be, an item of the list above it or a paragraph of its own, is not known yet.
 */
export function stable(text) {
  return parse(text.slice(0, text.lastIndexOf("\n") + 1)).at(-1)?.start ?? 0;
}

/** Text that grows, shown in `parent`: blocks that are complete are never touched again. */
export class Stream {
  #parent;
  #text = "";
  /** Where the blocks begin that may still change, and their elements. */
  #start = 0;
  #open = [];

  constructor(parent) {
    this.#parent = parent;
  }

  /** Shows `text`, of which what was shown before is the beginning. */
  update(text) {
    if (text === this.#text) return;
    this.#text = text;
    const rest = text.slice(this.#start);
    const blocks = parse(rest);
    if (blocks.length === 1 && blocks[0].kind === "code" && this.#open.length === 1 && this.#open[0].localName === "pre") {
      // In place, so that a selection in a long listing outlives the next token.
      this.#open[0].firstChild.textContent = blocks[0].text;
      return;
    }
    const elements = blocks.map(element);
    for (const old of this.#open) old.remove();
    this.#parent.append(...elements);
    const at = stable(rest);
    this.#open = elements.filter((_, i) => blocks[i].start >= at);
    this.#start += at;
  }
}
