// Models kept in the origin's private file system: for each URL a file of its bytes and a small one that says what of
// them is there. The page lists and removes; a worker writes.

import { asFailure, failure } from "./errors.js";

const FOLDER = "anygpu-models";

async function folder(create) {
  const root = await navigator.storage.getDirectory();
  return root.getDirectoryHandle(FOLDER, { create });
}

/** The name that a URL's files have. */
export async function keyOf(url) {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(url));
  return [...new Uint8Array(digest).slice(0, 16)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The files of a model: what is known of it, its bytes, the shaders that it needed. */
const namesOf = (key) => [`${key}.json`, `${key}.gguf`, `${key}.wgsl`];

async function readMeta(directory, key) {
  try {
    const file = await (await directory.getFileHandle(`${key}.json`)).getFile();
    const meta = JSON.parse(await file.text());
    return typeof meta.url === "string" && Number.isSafeInteger(meta.bytes) && Array.isArray(meta.have) ? meta : null;
  } catch {
    // Not there, or cut off while it was written: as good as not there.
    return null;
  }
}

/** What pages see: `list`, `remove` and `estimate`. */
export const cache = {
  /** The models that are kept, whole or in part. */
  async list() {
    const found = [];
    let directory;
    try {
      directory = await folder(false);
    } catch {
      return found;
    }
    for await (const name of directory.keys()) {
      const key = name.endsWith(".json") ? name.slice(0, -5) : null;
      const meta = key && (await readMeta(directory, key));
      if (!meta) continue;
      const { url, bytes, complete, storedAt, have, segment } = meta;
      const storedBytes = complete ? bytes : Math.min(bytes, have.length * segment);
      found.push({ key, url, bytes, storedBytes, complete, storedAt });
    }
    return found.sort((a, b) => (a.url < b.url ? -1 : 1));
  },

  /** Removes the model of a key or a URL; one that is not there is no error. */
  async remove(keyOrUrl) {
    let directory;
    try {
      directory = await folder(false);
    } catch {
      return;
    }
    const key = /^[0-9a-f]{32}$/.test(keyOrUrl) ? keyOrUrl : await keyOf(new URL(keyOrUrl, globalThis.location?.href).href);
    for (const name of namesOf(key)) {
      try {
        await directory.removeEntry(name);
      } catch (error) {
        if (error.name === "NotFoundError") continue;
        if (error.name === "NoModificationAllowedError") {
          throw failure("Io", "the model is being written by an engine: dispose it first");
        }
        throw asFailure(error);
      }
    }
  },

  /** Bytes that this origin uses and may use. */
  async estimate() {
    const { usage = 0, quota = 0 } = await navigator.storage.estimate();
    return { usage, quota };
  },
};

/** The whole file of a URL, where it is there and fits `spec`: `{ blob, meta }`. */
export async function findComplete(spec) {
  const key = await keyOf(spec.url);
  const directory = await folder(false).catch(() => null);
  const meta = directory && (await readMeta(directory, key));
  if (!meta?.complete || meta.url !== spec.url || differs(meta, spec)) return null;
  const blob = await (await directory.getFileHandle(`${key}.gguf`)).getFile().catch(() => null);
  return blob?.size === meta.bytes ? { blob, meta } : null;
}

/** The shaders that a model's last load with the same options needed; none where that is not known. */
export async function readShaders(url, options) {
  try {
    const file = await (await folder(false)).getFileHandle(`${await keyOf(url)}.wgsl`);
    const noted = JSON.parse(await (await file.getFile()).text());
    const whole = noted.shaders.every(({ kernel, source, accesses }) => [kernel, source, accesses].every((part) => typeof part === "string"));
    return whole && noted.options === options ? noted.shaders : [];
  } catch {
    // Not there, cut off while it was written, or not what is written here.
    return [];
  }
}

/** Notes them, beside a model that is kept; not where it is not, whose removal would leave them behind. */
export async function writeShaders(url, options, shaders) {
  const [key, directory] = [await keyOf(url), await folder(false)];
  if (!(await readMeta(directory, key))) return;
  const file = await (await directory.getFileHandle(`${key}.wgsl`, { create: true })).createSyncAccessHandle();
  try {
    file.truncate(0);
    file.write(new TextEncoder().encode(JSON.stringify({ options, shaders })), { at: 0 });
  } finally {
    file.close();
  }
}

function differs(meta, spec) {
  return (spec.bytes && spec.bytes !== meta.bytes) || (spec.sha256 && meta.sha256 && spec.sha256 !== meta.sha256);
}

/** A model on its way into the cache. Only in workers: pages have no synchronous access to files. */
export class Store {
  /**
   * Opens or makes the files of a URL; what an earlier download left is kept where it is the same file.
   * Throws where the browser has no such files, another worker writes them, or there is no room.
   */
  static async open(spec, bytes, segment, etag) {
    const key = await keyOf(spec.url);
    const directory = await folder(true);
    const old = await readMeta(directory, key);
    const handle = async (name) => (await directory.getFileHandle(name, { create: true })).createSyncAccessHandle();
    const data = await handle(`${key}.gguf`);
    let metaFile;
    try {
      metaFile = await handle(`${key}.json`);
      const same = old && old.url === spec.url && old.bytes === bytes && old.segment === segment && old.etag === etag;
      const have = same && !differs(old, spec) && data.getSize() === bytes ? old.have : [];
      const meta = { url: spec.url, bytes, segment, etag, sha256: null, complete: false, storedAt: null, have };
      const store = new Store(key, directory, data, metaFile, meta);
      const { usage, quota } = await cache.estimate();
      const wanted = bytes - data.getSize();
      if (wanted > quota - usage) {
        store.abandon();
        const room = Math.max(0, quota - usage);
        throw failure("Io", `the browser's storage is full: the model takes ${wanted} bytes, there is room for ${room}`);
      }
      if (data.getSize() !== bytes) data.truncate(bytes);
      store.#save();
      return store;
    } catch (error) {
      data.close();
      metaFile?.close();
      throw error;
    }
  }

  #saved = 0;

  constructor(key, directory, data, metaFile, meta) {
    Object.assign(this, { key, directory, data, metaFile, meta });
  }

  /** The segments that are there. */
  get have() {
    return this.meta.have;
  }

  #save() {
    const text = new TextEncoder().encode(JSON.stringify(this.meta));
    this.metaFile.truncate(0);
    this.metaFile.write(text, { at: 0 });
    this.metaFile.flush();
    this.#saved = performance.now();
  }

  /** Writes a segment; throws where there is no room. */
  write(index, bytes) {
    const written = this.data.write(bytes, { at: index * this.meta.segment });
    if (written !== bytes.byteLength) throw failure("Io", `the browser's storage is full: ${written} of ${bytes.byteLength} bytes were written`);
    this.meta.have.push(index);
    // What a download that breaks off has to fetch again is a second's worth at most.
    if (performance.now() - this.#saved > 1000) {
      this.data.flush();
      this.#save();
    }
  }

  read(at, into) {
    const found = this.data.read(into, { at });
    if (found !== into.byteLength) throw failure("Io", `cached file: found ${found} bytes at ${at}, expected ${into.byteLength}`);
  }

  /** Every segment is there: closes the files and returns the whole one. */
  async finish(sha256) {
    const { bytes, segment, have } = this.meta;
    const wanted = Math.ceil(bytes / segment);
    if (new Set(have).size !== wanted) throw failure("Io", `cached file: found ${have.length} parts, expected ${wanted}`);
    this.data.flush();
    Object.assign(this.meta, { complete: true, sha256: sha256 ?? null, storedAt: Date.now(), have: [] });
    this.#save();
    this.close();
    return (await this.directory.getFileHandle(`${this.key}.gguf`)).getFile();
  }

  /** Closes the files, to be gone on with later. */
  close() {
    try {
      this.data.flush();
      this.#save();
    } catch {
      // There is no room for what was not saved yet: it is fetched again.
    }
    this.data.close();
    this.metaFile.close();
  }

  /** Closes and empties the files: what they took is free again. */
  abandon() {
    try {
      this.data.truncate(0);
      this.metaFile.truncate(0);
    } catch {
      // Closed before.
    }
    this.data.close();
    this.metaFile.close();
    for (const name of namesOf(this.key)) this.directory.removeEntry(name).catch(() => {});
  }
}
