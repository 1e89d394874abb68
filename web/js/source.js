// Where a model's bytes come from. A source has a `size` and `read(offset, length)`, which may be called again and again:
// after a lost device the model is loaded from it anew.

import { findComplete, Store, cache } from "./cache.js";
import { checkSignal, failure } from "./errors.js";

/** Bytes fetched by one request. */
const SEGMENT = 4 << 20;
/** Requests at a time. */
const PARALLEL = 6;
/** Segments held in memory, read or to be read: what bounds this worker's memory. */
const HELD = 24;
/** Files up to this size are read in one go: each request takes about two milliseconds, and a model has a hundred pieces. */
const WHOLE = 64 << 20;
/** Attempts in a row without a byte before a download is given up. */
const ATTEMPTS = 6;
/** The wait after the first of them, doubled each time. */
const BACKOFF_MS = 200;

/** A `Blob` or `File`. */
class BlobSource {
  #ahead = null;
  #whole = null;

  constructor(blob, fromCache = false) {
    this.blob = blob;
    this.size = blob.size;
    this.fromCache = fromCache;
  }

  async #slice(offset, length) {
    try {
      return new Uint8Array(await this.blob.slice(offset, offset + length).arrayBuffer());
    } catch (error) {
      throw failure("Io", `the file cannot be read: ${error.message}`);
    }
  }

  async read(offset, length) {
    if (this.size <= WHOLE) {
      const whole = (this.#whole ??= this.#slice(0, this.size));
      try {
        return (await whole).subarray(offset, offset + length);
      } catch (error) {
        // Another attempt reads it anew.
        this.#whole = null;
        throw error;
      }
    }
    const ahead = this.#ahead;
    const hit = ahead && ahead.offset === offset && ahead.length >= length;
    const bytes = hit ? (await ahead.bytes).subarray(0, length) : await this.#slice(offset, length);
    // The next piece is read while this one is packed.
    const next = { offset: offset + length, length: Math.min(length, this.size - offset - length) };
    this.#ahead = next.length > 0 && length >= 1 << 20 ? { ...next, bytes: this.#slice(next.offset, next.length) } : null;
    this.#ahead?.bytes.catch(() => {});
    return bytes;
  }

  /** All is on the device: what was kept in memory goes. */
  async settle() {
    this.#whole = null;
  }

  close() {}
}

/** A URL, fetched in segments, several at a time, ahead of what is read; into the cache on the way. */
class UrlSource {
  #spec;
  #options;
  #etag = "";
  #ranges = true;
  #segments = [];
  #busy = 0;
  #touched = [];
  #urgent = [];
  #cursor = 0;
  #store = null;
  #whole = null;
  #received = 0;
  #closed = null;
  #streaming = false;
  #abort = new AbortController();
  #hash = null;
  #hashed = 0;
  fromCache = false;

  constructor(spec, options) {
    this.#spec = spec;
    this.#options = options;
    options.signal?.addEventListener("abort", () => this.close());
  }

  async open() {
    await this.#retry(async () => {
      const end = (this.#spec.bytes ? Math.min(this.#spec.bytes, SEGMENT) : SEGMENT) - 1;
      const response = await this.#request(`bytes=0-${end}`);
      const found = response.headers.get("content-range")?.match(/^bytes 0-\d+\/(\d+)$/);
      this.#etag = response.headers.get("etag") ?? "";
      if (response.status === 206) {
        this.size = found ? Number(found[1]) : await this.#sizeByHead();
        await this.#checkSize(response);
        this.#begin();
        this.#fetch(0, response);
      } else {
        // The server sends it all or nothing.
        this.#ranges = false;
        const length = Number(response.headers.get("content-length"));
        const encoded = response.headers.get("content-encoding");
        this.size = this.#spec.bytes ?? (length > 0 && !encoded ? length : undefined);
        if (this.size === undefined) {
          await response.body.cancel();
          throw permanent("the server says no length and takes no ranges: expected { url, bytes }");
        }
        if (length > 0 && !encoded) this.size = length;
        await this.#checkSize(response);
        this.#begin();
        this.#streamAll(response);
      }
    });
    // Who wants the header alone stores nothing.
    if (this.#options.cache && this.#options.ahead) await this.#openStore();
    if (this.#spec.sha256 && this.#options.Sha256) this.#hash = new this.#options.Sha256();
    // Segments may have come in any order while the store was being opened.
    for (let index = 0; index < this.#segments.length; index += 1) this.#keep(index);
    this.#pump();
    return this;
  }

  async #checkSize(response) {
    if (!this.#spec.bytes || this.#spec.bytes === this.size) return;
    await response.body.cancel();
    throw permanent(`found ${this.size} bytes, expected ${this.#spec.bytes}`);
  }

  #begin() {
    const count = Math.ceil(this.size / SEGMENT);
    this.#segments = Array.from({ length: count }, () => ({ state: "missing" }));
  }

  async #sizeByHead() {
    const head = await fetch(this.#spec.url, { method: "HEAD", signal: this.#abort.signal });
    const size = Number(head.headers.get("content-length"));
    if (!head.ok || !(size > 0)) throw permanent("the server says no length: expected { url, bytes }");
    return size;
  }

  #length(index) {
    return Math.min(SEGMENT, this.size - index * SEGMENT);
  }

  async #request(range) {
    // What is kept here need not fill the browser's own cache as well.
    const cache = this.#options.cache ? "no-store" : "default";
    const response = await fetch(this.#spec.url, { headers: { range }, cache, signal: this.#abort.signal });
    if (response.status === 206 || response.status === 200) return response;
    await response.body?.cancel();
    if (response.status === 416 && response.headers.get("content-range")?.endsWith("/0")) {
      throw permanent("the file is empty: expected a GGUF file", "Format");
    }
    const message = `HTTP ${response.status} ${response.statusText}`.trim();
    // What is there later is worth waiting for; what is not there is not.
    if (response.status >= 500 || response.status === 429 || response.status === 408) throw new Error(message);
    throw permanent(message);
  }

  /** Runs `work` until it succeeds; `work` gets a function to call at each sign of progress. */
  async #retry(work) {
    let attempt = 0;
    for (;;) {
      try {
        return await work(() => (attempt = 0));
      } catch (error) {
        if (this.#closed) throw this.#closed;
        attempt += 1;
        if (error.permanent || attempt >= ATTEMPTS) {
          const tries = error.permanent ? "" : ` (${attempt} attempts)`;
          throw failure(error.kind ?? "Io", `${this.#spec.url}: ${error.message}${tries}`);
        }
        await new Promise((resolve) => setTimeout(resolve, BACKOFF_MS * 2 ** (attempt - 1)));
      }
    }
  }

  async #openStore() {
    try {
      this.#store = await Store.open(this.#spec, this.size, SEGMENT, this.#etag);
      for (const index of this.#store.have) {
        const segment = this.#segments[index];
        if (!segment) continue;
        segment.stored = true;
        if (segment.state === "missing") this.#enter(segment, "stored");
        if (!segment.bytes) this.#received += this.#length(index);
      }
    } catch (error) {
      this.#store = null;
      this.#options.tell({ type: "cache-failed", message: error.message });
    }
  }

  #enter(segment, state) {
    segment.state = state;
    segment.waiting?.forEach((resolve) => resolve());
    segment.waiting = null;
  }

  /** Bytes of a segment have come from the network. */
  #arrived(index, bytes) {
    const segment = this.#segments[index];
    segment.bytes = bytes;
    this.#received += bytes.byteLength;
    this.#keep(index);
    this.#enter(segment, segment.stored ? "stored" : "held");
    this.#options.progress?.(this.#received, this.size);
  }

  /** Into the cache and the hash, as far as it goes. */
  #keep(index) {
    const segment = this.#segments[index];
    if (this.#store && !segment.stored && segment.bytes) {
      try {
        if (!this.#store.have.includes(index)) this.#store.write(index, segment.bytes);
        segment.stored = true;
        if (segment.state === "held") segment.state = "stored";
      } catch (error) {
        this.#dropStore(error);
      }
    }
    while (this.#hash && this.#segments[this.#hashed]?.bytes) {
      this.#hash.update(this.#segments[this.#hashed].bytes);
      this.#hashed += 1;
    }
  }

  /** The cache is full or broken: the load goes on without it. */
  #dropStore(error) {
    this.#store.abandon();
    this.#store = null;
    for (const segment of this.#segments) {
      segment.stored = false;
      if (segment.state !== "stored") continue;
      segment.state = segment.bytes ? "held" : "missing";
    }
    this.#options.tell({ type: "cache-failed", message: error.message });
  }

  #held() {
    return this.#segments.reduce((count, segment) => count + (segment.bytes ? 1 : 0), 0);
  }

  /** Lets go of segments until there is room: those that were read, oldest first, then those that the cache has. */
  #evict() {
    let held = this.#held();
    const drop = (index) => {
      const segment = this.#segments[index];
      if (held < HELD || !segment.bytes || (this.#hash && index >= this.#hashed)) return false;
      segment.bytes = null;
      if (!segment.stored) segment.state = "missing";
      held -= 1;
      return true;
    };
    this.#touched = this.#touched.filter((index) => !drop(index));
    if (held >= HELD) this.#segments.forEach((segment, index) => segment.stored && drop(index));
    return held;
  }

  /** Starts requests: what is waited for first, then what comes after the last read. */
  #pump() {
    while (this.#ranges && !this.#closed && this.#busy < PARALLEL) {
      let index = this.#urgent.shift();
      if (index === undefined && this.#options.ahead) {
        if (this.#evict() + this.#busy >= HELD) return;
        const missing = (segment) => segment.state === "missing" && !segment.read;
        index = this.#segments.findIndex((segment, at) => at >= this.#cursor && missing(segment));
        if (index < 0) index = this.#segments.findIndex(missing);
        if (index < 0) return;
      }
      if (index === undefined) return;
      if (this.#segments[index].state === "missing") this.#fetch(index);
    }
  }

  /** Fetches a segment, from a response that is already there if there is one. */
  async #fetch(index, response = null) {
    this.#busy += 1;
    Object.assign(this.#segments[index], { state: "busy", error: null });
    const bytes = new Uint8Array(this.#length(index));
    let got = 0;
    try {
      await this.#retry(async (progressed) => {
        const start = index * SEGMENT;
        const answer = response ?? (await this.#request(`bytes=${start + got}-${start + bytes.length - 1}`));
        response = null;
        if (answer.status !== 206) throw permanent("the server stopped taking ranges");
        const total = answer.headers.get("content-range")?.match(/\/(\d+)$/)?.[1];
        const etag = answer.headers.get("etag") ?? "";
        if ((total && Number(total) !== this.size) || etag !== this.#etag) {
          throw permanent("the file changed while it was fetched");
        }
        const reader = answer.body.getReader();
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          if (got + value.length > bytes.length) throw permanent(`found more than the ${bytes.length} bytes asked for`);
          bytes.set(value, got);
          got += value.length;
          progressed();
        }
        if (got < bytes.length) throw new Error(`the connection broke after ${got} of ${bytes.length} bytes`);
      });
      this.#busy -= 1;
      this.#arrived(index, bytes);
    } catch (error) {
      this.#busy -= 1;
      this.#fail(this.#segments[index], error);
    }
    this.#pump();
  }

  /** Without ranges: the whole body, again as long as a reader waits for what was let go of. */
  async #streamAll(response) {
    if (this.#streaming) return;
    this.#streaming = true;
    try {
      do {
        await this.#stream(response);
        response = null;
      } while (this.#segments.some(({ state, waiting }) => state === "missing" && waiting));
    } catch (error) {
      for (const segment of this.#segments) if (segment.state === "missing") this.#fail(segment, error);
    }
    this.#streaming = false;
  }

  /** The whole body in order, from the start again after a break. */
  async #stream(response) {
    let index = 0;
    await this.#retry(async (progressed) => {
      const body = response ?? (await this.#request("bytes=0-"));
      response = null;
      const reader = body.body.getReader();
      const skip = index * SEGMENT;
      let [at, filled] = [0, 0];
      let bytes = new Uint8Array(this.#length(index));
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        let rest = value.subarray(Math.min(value.length, Math.max(0, skip - at)));
        at += value.length;
        if (at > this.size) throw permanent(`found more than the ${this.size} bytes that were announced`);
        while (rest.length > 0) {
          const part = rest.subarray(0, bytes.length - filled);
          bytes.set(part, filled);
          filled += part.length;
          rest = rest.subarray(part.length);
          if (filled < bytes.length) continue;
          await this.#room();
          this.#arrived(index, bytes);
          progressed();
          index += 1;
          filled = 0;
          bytes = new Uint8Array(index < this.#segments.length ? this.#length(index) : 0);
        }
      }
      if (index < this.#segments.length) throw new Error(`the connection broke after ${at} of ${this.size} bytes`);
    });
  }

  /** Waits while memory is full and nobody waits for what comes. */
  async #room() {
    const wanted = () => this.#segments.some(({ waiting }) => waiting);
    while (this.#evict() >= HELD && !wanted() && !this.#abort.signal.aborted) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  /** A segment did not come: who waits for it is told, and only who reads it has it asked for again. */
  #fail(segment, error) {
    Object.assign(segment, { state: "missing", read: true, error });
    segment.waiting?.forEach((resolve) => resolve());
    segment.waiting = null;
  }

  /** Waits until a segment can be read, and copies a part of it. */
  async #copy(index, from, into) {
    for (;;) {
      if (this.#closed) throw this.#closed;
      const segment = this.#segments[index];
      segment.read = true;
      if (segment.bytes) {
        into.set(segment.bytes.subarray(from, from + into.length));
        const at = this.#touched.indexOf(index);
        if (at >= 0) this.#touched.splice(at, 1);
        this.#touched.push(index);
        return;
      }
      if (segment.state === "stored") return this.#store.read(index * SEGMENT + from, into);
      const done = new Promise((resolve) => (segment.waiting ??= []).push(resolve));
      if (segment.state === "missing") {
        // What went wrong before may be over: a server that came back.
        segment.error = null;
        if (this.#ranges) {
          this.#urgent.push(index);
          this.#pump();
        } else {
          this.#streamAll(null);
        }
      }
      await done;
      if (segment.error) throw segment.error;
    }
  }

  async read(offset, length) {
    if (this.#whole) return this.#whole.read(offset, length);
    checkSignal(this.#options.signal);
    if (offset === 0) {
      // A model is being read from its start: all of it will be wanted.
      for (const segment of this.#segments) segment.read = false;
    }
    const out = new Uint8Array(length);
    const last = Math.floor((offset + length - 1) / SEGMENT);
    for (let index = Math.floor(offset / SEGMENT); index <= last; index += 1) {
      if (this.#segments[index].state === "missing") this.#urgent.push(index);
    }
    this.#pump();
    let done = 0;
    while (done < length) {
      const at = offset + done;
      const index = Math.floor(at / SEGMENT);
      const from = at - index * SEGMENT;
      const count = Math.min(length - done, this.#length(index) - from);
      this.#cursor = index;
      await this.#copy(index, from, out.subarray(done, done + count));
      done += count;
    }
    this.#pump();
    return out;
  }

  /** All that was wanted has been read: checks the hash, completes the cached file and lets go of memory. */
  async settle() {
    if (this.#whole) return;
    if (this.#store || this.#hash) await this.#complete();
    for (const segment of this.#segments) {
      segment.bytes = null;
      if (segment.state === "held") segment.state = "missing";
    }
    this.#touched = [];
  }

  async #complete() {
    const scratch = new Uint8Array(SEGMENT);
    for (let index = 0; index < this.#segments.length; index += 1) {
      // A cache that fell away on the way wants nothing more.
      if (!this.#store && !this.#hash) break;
      const unhashed = this.#hash && index >= this.#hashed;
      if (!unhashed && this.#segments[index].state === "stored") continue;
      const into = scratch.subarray(0, this.#length(index));
      await this.#copy(index, 0, into);
      if (this.#hash && index >= this.#hashed) {
        this.#hash.update(into);
        this.#hashed = index + 1;
      }
    }
    if (this.#hash) {
      const found = this.#hash.hex();
      this.#hash.free();
      this.#hash = null;
      if (found !== this.#spec.sha256) {
        this.#store?.abandon();
        this.#store = null;
        throw failure("Format", `${this.#spec.url}: SHA-256 is ${found}, expected ${this.#spec.sha256}`);
      }
    }
    if (!this.#store) return;
    try {
      this.#whole = new BlobSource(await this.#store.finish(this.#spec.sha256), true);
      this.#store = null;
    } catch (error) {
      this.#dropStore(error);
    }
  }

  close() {
    this.#closed ??= failure("Cancelled", "cancelled by the caller");
    this.#abort.abort();
    this.#store?.close();
    this.#store = null;
    for (const segment of this.#segments) if (!segment.bytes) this.#fail(segment, this.#closed);
  }
}

/** An error that another attempt would meet again. */
function permanent(message, kind = "Io") {
  return Object.assign(new Error(message), { permanent: true, kind });
}

/** Hashes a source in order and throws "Format" where it is not what was expected. */
async function checkHash(source, spec, Sha256) {
  const hash = new Sha256();
  for (let offset = 0; offset < source.size; offset += SEGMENT) {
    hash.update(await source.read(offset, Math.min(SEGMENT, source.size - offset)));
  }
  const found = hash.hex();
  hash.free();
  return found === spec.sha256 ? null : found;
}

/**
 * Opens a source: `{ blob }` or `{ url, sha256?, bytes? }`.
 * @param options `{ cache, ahead, signal, tell, progress, Sha256 }`: keep in and take from the cache; fetch ahead of what
 *   is read; what stops it; told of events and of `(received, total)`; the hash, where hashes are checked.
 */
export async function openSource(spec, options) {
  if (spec.blob) {
    if (spec.blob.size === 0) throw failure("Format", "the file is empty: expected a GGUF file");
    return new BlobSource(spec.blob);
  }
  if (options.cache) {
    const found = await findComplete(spec).catch(() => null);
    if (found) {
      const source = new BlobSource(found.blob, true);
      const unknown = spec.sha256 && found.meta.sha256 !== spec.sha256 && options.Sha256;
      if (!unknown || (await checkHash(source, spec, options.Sha256)) === null) return source;
      await cache.remove(spec.url);
    }
  }
  return new UrlSource(spec, options).open();
}
