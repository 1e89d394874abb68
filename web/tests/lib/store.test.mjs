// What of a download lands in the cache, whatever the order in which its parts and the files to keep them in are there.

import assert from "node:assert/strict";
import { test } from "node:test";

const SEGMENT = 4 << 20;
const BYTES = new Uint8Array(2 * SEGMENT + 1000).map((_, i) => (i * 31 + (i >> 12)) % 251);
const URL_ = "http://models.test/model.gguf";

/** A promise and what settles it. */
function gate() {
  let open;
  return Object.assign(new Promise((resolve) => (open = resolve)), { open: () => open() });
}

/** An origin's private file system in memory: there for the search, and for the download that follows once it is `ready`. */
function files(ready) {
  const stored = new Map();
  let searched = false;
  const handle = (name) => ({
    async createSyncAccessHandle() {
      return {
        getSize: () => stored.get(name).length,
        truncate(size) {
          const next = new Uint8Array(size);
          next.set(stored.get(name).subarray(0, size));
          stored.set(name, next);
        },
        write(bytes, { at }) {
          if (at + bytes.length > stored.get(name).length) this.truncate(at + bytes.length);
          stored.get(name).set(bytes, at);
          return bytes.length;
        },
        read(into, { at }) {
          into.set(stored.get(name).subarray(at, at + into.length));
          return into.length;
        },
        flush() {},
        close() {},
      };
    },
    getFile: async () => new Blob([stored.get(name)]),
  });
  const directory = {
    async getFileHandle(name, { create } = {}) {
      if (!stored.has(name) && !create) throw Object.assign(new Error(name), { name: "NotFoundError" });
      if (!stored.has(name)) stored.set(name, new Uint8Array(0));
      return handle(name);
    },
    removeEntry: async (name) => stored.delete(name),
  };
  const root = { getDirectoryHandle: async () => directory };
  const storage = {
    async getDirectory() {
      if (searched) await ready;
      searched = true;
      return root;
    },
    estimate: async () => ({ usage: 0, quota: 1e12 }),
  };
  return { stored, storage };
}

for (const last of [false, true]) {
  test(`a part that comes before the files are open is kept, ${last ? "also ahead of others" : "in order"}`, async () => {
    const opened = gate();
    const { stored, storage } = files(opened);
    Object.defineProperty(globalThis, "navigator", { value: { storage }, configurable: true, writable: true });
    const middle = gate();
    const tail = gate();
    globalThis.fetch = async (url, { headers }) => {
      const [, from, to] = headers.range.match(/^bytes=(\d+)-(\d+)$/);
      const [start, end] = [Number(from), Math.min(Number(to) + 1, BYTES.length)];
      // The middle part waits for the files where the last one is to come before it.
      if (last && start === SEGMENT) await middle;
      if (start === 2 * SEGMENT) setTimeout(tail.open, 50);
      const headersBack = { "content-range": `bytes ${start}-${end - 1}/${BYTES.length}`, etag: '"1"' };
      return new Response(BYTES.slice(start, end), { status: 206, headers: headersBack });
    };
    const { openSource } = await import("../../js/source.js");
    const events = [];
    const downloading = openSource({ url: URL_ }, { cache: true, ahead: true, tell: (event) => events.push(event) });
    await tail;
    opened.open();
    const read = await downloading;
    middle.open();
    assert.deepEqual(await read.read(0, 16), BYTES.slice(0, 16));
    await read.settle();
    assert.deepEqual(events, []);
    const [kept] = [...stored].filter(([name]) => name.endsWith(".gguf")).map(([, bytes]) => bytes);
    assert.ok(Buffer.from(kept).equals(Buffer.from(BYTES)), "the file that is kept is the one that was served");
    read.close();
  });
}
