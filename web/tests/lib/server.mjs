// A static server for tests: byte ranges, the headers of cross-origin isolation, and faults on demand.

import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createServer } from "node:http";
import { extname, join, normalize, sep } from "node:path";

const TYPES = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".json": "application/json",
  ".mjs": "text/javascript; charset=utf-8",
  ".png": "image/png",
  ".svg": "image/svg+xml",
  ".wasm": "application/wasm",
};

/**
 * What goes wrong with requests for one path. Every field is optional; without any the file is served as it is.
 *
 * @typedef {object} Fault
 * @property {number} [times]        how many requests it hits, from the next one on; all of them if left out
 * @property {number} [breakAfter]   the connection is cut after this many bytes of the body
 * @property {number} [status]       answered with this status and no file, such as 503
 * @property {Record<string, string>} [headers]  headers added, such as `retry-after`
 * @property {boolean} [noRanges]    range requests get the whole file with status 200, as from a server without ranges
 * @property {number} [length]       the `content-length` and total that the headers state, whatever the file has
 * @property {boolean} [noLength]    neither length nor total is stated
 * @property {(bytes: Buffer, offset: number) => Buffer} [change]  the bytes that are sent instead
 * @property {number} [bytesPerSecond]   the body is sent no faster
 * @property {number} [delayMs]      waits before it answers
 */

/**
 * Serves files on a loopback port of its own.
 *
 * @param {Record<string, string>} folders  what is served: URL prefix ("/", "/models/") -> folder; the longest prefix wins
 * @param {{ isolated?: boolean, cors?: boolean }} [options]  `isolated`: COOP and COEP, so that SharedArrayBuffer is there
 *   (default true); `cors`: other origins may read (default true)
 */
export async function serve(folders, { isolated = true, cors = true } = {}) {
  const prefixes = Object.keys(folders).sort((a, b) => b.length - a.length);
  /** @type {Map<string, Fault>} */
  const faults = new Map();
  /** @type {{ method: string, path: string, range: string | null, status: number, sentBytes: number }[]} */
  const requests = [];
  const server = createServer((request, response) => {
    answer(request, response).catch((error) => response.destroy(error));
  });

  async function answer(request, response) {
    const path = decodeURIComponent(new URL(request.url, "http://localhost").pathname);
    const fault = take(faults, path);
    const record = { method: request.method, path, range: request.headers.range ?? null, status: 0, sentBytes: 0 };
    requests.push(record);
    const head = (status, headers = {}) => {
      record.status = status;
      response.writeHead(status, {
        "cache-control": "no-store",
        ...(isolated && { "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" }),
        "cross-origin-resource-policy": cors ? "cross-origin" : "same-origin",
        ...(cors && {
          "access-control-allow-origin": "*",
          "access-control-allow-headers": "range, if-range",
          "access-control-expose-headers": "accept-ranges, content-length, content-range, etag",
        }),
        ...headers,
        ...fault.headers,
      });
    };
    if (fault.delayMs) await new Promise((resolve) => setTimeout(resolve, fault.delayMs));
    if (fault.status) return void (head(fault.status), response.end());
    if (request.method === "OPTIONS") return void (head(204), response.end());
    if (request.method !== "GET" && request.method !== "HEAD") return void (head(405, { allow: "GET, HEAD, OPTIONS" }), response.end());

    const prefix = prefixes.find((p) => path.startsWith(p));
    const folder = prefix && folders[prefix];
    const file = folder && normalize(join(folder, path.slice(prefix.length) || "index.html"));
    const inside = file?.startsWith(normalize(folder + sep));
    const info = inside && (await stat(file).catch(() => null));
    if (!info?.isFile()) return void (head(404), response.end("not found"));

    const size = info.size;
    const stated = fault.length ?? size;
    const range = fault.noRanges ? null : parseRange(request.headers.range, size);
    const headers = {
      "content-type": TYPES[extname(file)] ?? "application/octet-stream",
      etag: `"${size.toString(16)}-${Math.trunc(info.mtimeMs).toString(16)}"`,
      ...(!fault.noRanges && { "accept-ranges": "bytes" }),
    };
    if (range === "beyond") return void (head(416, { "content-range": `bytes */${size}` }), response.end());
    const [start, end] = range ?? [0, size - 1];
    if (!fault.noLength) headers["content-length"] = range ? end - start + 1 : stated;
    if (range) headers["content-range"] = `bytes ${start}-${end}/${fault.noLength ? "*" : stated}`;
    head(range ? 206 : 200, headers);
    if (request.method === "HEAD" || size === 0) return void response.end();
    await body(file, start, end, fault, response, record);
  }

  await new Promise((resolve, reject) => server.once("error", reject).listen(0, "127.0.0.1", () => resolve(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return {
    /** Address of the root, with a slash at the end. */
    url: `http://127.0.0.1:${port}/`,
    /** What was asked for, in order. */
    requests,
    /** From now on requests for `path` ("/models/x.gguf") go wrong. `null` ends that. */
    fault(/** @type {string} */ path, /** @type {Fault | null} */ fault) {
      if (fault) faults.set(path, { ...fault });
      else faults.delete(path);
    },
    close() {
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

function take(faults, path) {
  const fault = faults.get(path);
  if (!fault) return {};
  if (fault.times !== undefined && --fault.times <= 0) faults.delete(path);
  return { ...fault };
}

/** `[first, last]`, null without a usable range, or "beyond" the end. */
function parseRange(header, size) {
  const match = /^bytes=(\d*)-(\d*)$/.exec(header ?? "");
  if (!match || (!match[1] && !match[2])) return null;
  const start = match[1] ? Number(match[1]) : Math.max(0, size - Number(match[2]));
  const end = match[1] && match[2] ? Math.min(Number(match[2]), size - 1) : size - 1;
  return start >= size || start > end ? "beyond" : [start, end];
}

async function body(file, start, end, fault, response, record) {
  const stream = createReadStream(file, { start, end, highWaterMark: 64 * 1024 });
  let left = fault.breakAfter ?? Infinity;
  let offset = start;
  for await (const read of stream) {
    const bytes = fault.change ? fault.change(read, offset) : read;
    offset += read.length;
    const part = bytes.length > left ? bytes.subarray(0, left) : bytes;
    left -= part.length;
    record.sentBytes += part.length;
    if (response.destroyed) return void stream.destroy();
    if (!response.write(part) && !(left <= 0)) {
      await new Promise((resolve) => {
        const done = () => {
          response.off("drain", done).off("close", done);
          resolve(undefined);
        };
        response.on("drain", done).on("close", done);
      });
    }
    if (left <= 0) {
      // What was written goes out first, then the connection ends in the middle of the body.
      await new Promise((resolve) => setTimeout(resolve, 20));
      return void (stream.destroy(), response.destroy());
    }
    if (fault.bytesPerSecond) await new Promise((resolve) => setTimeout(resolve, (part.length / fault.bytesPerSecond) * 1000));
  }
  // With a length that is not the file's, the connection ends where the file does.
  if (fault.length !== undefined && record.status === 200) return void response.destroy();
  response.end();
}
