// The conversation: what is asked, the reply as it arrives, and what it took.

import { byId, eachFrame, h } from "./dom.js";
import { duration, significant } from "./figures.js";
import { Stream } from "./markdown.js";
import { button, problem } from "./parts.js";
import { sampling, settings } from "./settings.js";
import { Speaker } from "./speaker.js";
import { ending, explain } from "./words.js";

/** One reply being written. */
class Reply {
  text = "";
  pieces = 0;
  started = performance.now();
  firstAt = null;
  abort = new AbortController();

  constructor(turns, follow) {
    this.body = h("div", { class: "text" });
    this.foot = h("p", { class: "foot" }, "Waiting for the model");
    this.element = h("article", { class: "turn reply writing" }, h("h3", { class: "who" }, "Model"), this.body, this.foot);
    turns.append(this.element);
    this.stream = new Stream(this.body);
    this.show = eachFrame(() => {
      this.stream.update(this.text);
      if (this.element.classList.contains("writing")) this.foot.textContent = this.#live();
      follow();
    });
  }

  begin() {
    this.started = performance.now();
    this.foot.textContent = "Reading the conversation";
  }

  add(piece) {
    if (this.firstAt === null) {
      this.firstAt = performance.now();
      performance.mark("anygpu:first-token");
    }
    this.text += piece;
    this.pieces += 1;
    this.show();
  }

  /** An estimate while it runs: a piece is a token, save where several make one character. */
  rate() {
    const seconds = (performance.now() - this.firstAt) / 1000;
    return this.pieces > 4 && seconds > 0.1 ? (this.pieces - 1) / seconds : null;
  }

  #live() {
    if (this.firstAt === null) return this.foot.textContent;
    const rate = this.rate();
    return [`first token ${duration(this.firstAt - this.started)}`, rate && `about ${significant(rate)} tok/s`].filter(Boolean).join(" · ");
  }

  /** The reply as it stays. */
  close(words, ...more) {
    this.element.classList.remove("writing");
    this.stream.update(this.text);
    this.foot.replaceChildren(...words.filter(Boolean).map((word) => h("span", {}, word)));
    if (this.text) this.foot.append(copyButton(this));
    this.element.append(...more);
  }
}

function copyButton(reply) {
  const copy = button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(reply.text);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Not allowed";
    }
    setTimeout(() => (copy.textContent = "Copy"), 2000);
  }, "quiet");
  return copy;
}

const continues = (engine) => engine?.info.model.hasChatTemplate === false;

/** The conversation of the chat view. */
export class Chat {
  /** What has been said, as `engine.generate` takes it. */
  messages = [];
  reply = null;
  /** Whether the newest text is kept in view. */
  #following = true;

  constructor(session) {
    this.session = session;
    this.log = byId("log");
    this.turns = byId("turns");
    this.prompt = byId("prompt");
    this.send = byId("send");
    this.speaker = new Speaker(byId("spoken"));
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.reply) this.stop();
      else this.#submit();
    });
    this.prompt.addEventListener("keydown", (event) => {
      // Enter that ends the composition of a character belongs to the input method.
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      if (!this.reply) this.#submit();
    });
    this.prompt.addEventListener("input", () => this.#grow());
    byId("new-chat").addEventListener("click", () => {
      this.clear();
      this.prompt.focus();
    });
    const latest = byId("latest");
    this.log.addEventListener("scroll", () => {
      this.#following = this.log.scrollHeight - this.log.scrollTop - this.log.clientHeight < 48;
      latest.hidden = this.#following;
    });
    latest.addEventListener("click", () => {
      this.#following = true;
      this.follow();
      this.log.focus();
    });
    session.addEventListener("change", () => this.update());
    this.update();
  }

  follow = () => {
    if (this.#following) this.log.scrollTop = this.log.scrollHeight;
  };

  /** Stops the reply that is being written. */
  stop() {
    this.reply?.abort.abort();
  }

  /** Begins anew. */
  clear() {
    this.stop();
    this.messages = [];
    for (const turn of this.turns.querySelectorAll(".turn")) turn.remove();
    byId("welcome").hidden = false;
    byId("spoken").replaceChildren();
    this.update();
  }

  /** The composer as the engine's state allows. */
  update() {
    const { state, task } = this.session;
    const other = task && task !== "generate";
    const dead = state === "failed" || state === "empty";
    this.send.textContent = this.reply ? "Stop" : "Send";
    this.send.classList.toggle("stop", Boolean(this.reply));
    this.send.disabled = !this.reply && Boolean(other || dead);
    byId("new-chat").disabled = !byId("welcome").hidden;
    byId("hint").textContent = other
      ? `The ${task} is running; the model answers after it.`
      : dead
        ? "No model is loaded."
        : continues(this.session.engine)
          ? "This model has no chat template: it continues what you write."
          : "";
  }

  #grow() {
    this.prompt.style.height = "auto";
    this.prompt.style.height = `${this.prompt.scrollHeight}px`;
  }

  #submit() {
    const text = this.prompt.value.trim();
    // What cannot be sent yet stays in the field.
    if (!text || this.send.disabled || this.reply || this.session.task) return;
    this.prompt.value = "";
    this.#grow();
    this.ask(text);
  }

  /** Asks and shows the reply as it comes. Waits for a model that is still loading. */
  async ask(text) {
    if (this.reply) return;
    byId("welcome").hidden = true;
    // What went wrong before is behind the reader now, and asking it again would be out of turn.
    for (const problem of this.turns.querySelectorAll(".turn .problem")) problem.remove();
    this.turns.append(
      h("article", { class: "turn mine" }, h("h3", { class: "who" }, "You"), h("div", { class: "text" }, h("p", {}, text))),
    );
    await this.#answer(text);
  }

  async #answer(question) {
    this.#following = true;
    const reply = new Reply(this.turns, this.follow);
    this.reply = reply;
    const chat = this.messages;
    chat.push({ role: "user", content: question });
    this.speaker.start();
    this.update();
    this.follow();
    try {
      const engine = await this.session.ready(reply.abort.signal);
      await this.session.busy("generate", () => this.#generate(engine, reply));
    } catch (error) {
      this.#broke(reply, error, question);
    }
    // A question without an answer is none of what the model has seen.
    if (reply.text) chat.push({ role: "assistant", content: reply.text });
    else chat.pop();
    this.reply = null;
    this.update();
    this.follow();
  }

  async #generate(engine, reply) {
    reply.begin();
    const system = settings.system.trim();
    const messages = system ? [{ role: "system", content: system }, ...this.messages] : this.messages;
    const options = sampling();
    const signal = reply.abort.signal;
    // A model without turns of its own goes on with the text.
    const stream = continues(engine)
      ? engine.generate(this.messages.at(-1).content, { ...options, signal, raw: true })
      : engine.generate(messages, { ...options, signal });
    // Heard even if the loop below throws first, or a failure would be reported as unhandled.
    const metrics = Promise.resolve(stream.metrics).catch(() => null);
    for await (const piece of stream) {
      reply.add(piece);
      this.speaker.push(piece);
    }
    const m = await metrics;
    const rate = m?.tokensPerSecond ?? reply.rate();
    const words = [
      m && `${m.generatedTokens} token${m.generatedTokens === 1 ? "" : "s"}`,
      rate && `${significant(rate)} tok/s`,
      m && `first token ${duration(m.firstTokenMs)}`,
      m && `prompt ${m.promptTokens}${m.prefilledTokens < m.promptTokens ? `, ${m.prefilledTokens} new` : ""}`,
      options.temperature > 0 && `seed ${options.seed}`,
      m?.forgottenMessages > 0 && `${m.forgottenMessages} earlier messages left out`,
      m?.rebuilt > 0 && "GPU rebuilt",
      ending(m?.finish),
    ];
    reply.close(words);
    this.speaker.finish(m?.finish === "cancelled" ? "Stopped." : "End of the reply.");
  }

  #broke(reply, error, question) {
    if (reply.abort.signal.aborted || error?.name === "Cancelled") {
      const rate = reply.rate();
      reply.close([rate && `about ${significant(rate)} tok/s`, reply.firstAt && `first token ${duration(reply.firstAt - reply.started)}`, "stopped"]);
      this.speaker.finish("Stopped.");
      return;
    }
    const again = button("Try again", () => {
      const { session } = this;
      if (this.reply || session.task) return;
      // The half answer is not part of what is asked again.
      if (reply.text) this.messages.splice(-2);
      reply.element.remove();
      if (session.state === "failed" || session.state === "empty") session.open(session.opened);
      this.prompt.focus();
      this.#answer(question);
    });
    reply.close([reply.text && "broken off"], problem(error, again));
    this.speaker.finish(explain(error).title);
    if (error?.name === "DeviceLost") this.session.lost(error);
  }
}
