// What a screen reader hears of a reply: whole sentences, a few seconds apart, instead of every token.

const PAUSE_MS = 2000;
/** A sentence ends in a mark and a space, or a line ends. */
const END = /[.!?:]["')\]]?\s|\n/g;

export class Speaker {
  #region;
  #text = "";
  #last = 0;

  /** @param {HTMLElement} region an element with role=log, out of sight */
  constructor(region) {
    this.#region = region;
  }

  /** Begins a reply. */
  start() {
    this.#region.replaceChildren();
    this.#text = "";
    this.#last = performance.now();
  }

  /** More of the reply. */
  push(piece) {
    this.#text += piece;
    if (performance.now() - this.#last < PAUSE_MS) return;
    let end = 0;
    for (const found of this.#text.matchAll(END)) end = found.index + found[0].length;
    if (end > 0) {
      this.#say(this.#text.slice(0, end));
      this.#text = this.#text.slice(end);
    }
  }

  /** The rest of it, and how it ended. */
  finish(words) {
    this.#say(this.#text);
    this.#text = "";
    this.#say(words);
  }

  #say(text) {
    const plain = text.replace(/[*`#_>]+/g, "").trim();
    if (!plain) return;
    this.#last = performance.now();
    const line = document.createElement("p");
    line.textContent = plain;
    this.#region.append(line);
    // What was spoken long ago only repeats the conversation to who reads on.
    while (this.#region.children.length > 8) this.#region.firstChild.remove();
  }
}
