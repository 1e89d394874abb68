// The tools of the tests: each fault does what it says, and the browser has an adapter.

import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { launch, open } from "./browser.mjs";
import { serve } from "./server.mjs";

const BYTES = Buffer.from(Array.from({ length: 200_000 }, (_, i) => (i * 31) % 251));
let folder, server;

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "anygpu-web-"));
  await writeFile(join(folder, "a.bin"), BYTES);
  await writeFile(join(folder, "index.html"), "<!doctype html><title>x</title><link rel=icon href=data:,>");
  server = await serve({ "/": folder });
});
after(async () => {
  await server.close();
  await rm(folder, { recursive: true });
});

const get = (headers = {}) => fetch(`${server.url}a.bin`, { headers });
const read = async (response) => Buffer.from(await response.arrayBuffer());

test("ranges", async () => {
  for (const [range, start, end] of [["bytes=10-19", 10, 20], ["bytes=199990-", 199_990, 200_000], ["bytes=-5", 199_995, 200_000], ["bytes=0-999999", 0, 200_000]]) {
    const response = await get({ range });
    assert.equal(response.status, 206, range);
    assert.equal(response.headers.get("content-range"), `bytes ${start}-${end - 1}/200000`);
    assert.deepEqual(await read(response), BYTES.subarray(start, end));
  }
  assert.equal((await get({ range: "bytes=200000-" })).status, 416);
  assert.deepEqual(await read(await get()), BYTES);
  assert.equal((await fetch(`${server.url}../../etc/passwd`)).status, 404);
  assert.equal((await fetch(`${server.url}%2e%2e/%2e%2e/etc/passwd`)).status, 404);
});

test("a connection breaks after so many bytes, as often as asked", async () => {
  server.fault("/a.bin", { breakAfter: 70_000, times: 2 });
  for (let i = 0; i < 2; i++) {
    const response = await get();
    let got = 0;
    await assert.rejects(async () => {
      for await (const part of response.body) got += part.length;
    });
    assert.equal(got, 70_000);
  }
  assert.deepEqual(await read(await get()), BYTES);
});

test("statuses, lengths, servers without ranges, changed bytes", async () => {
  server.fault("/a.bin", { status: 503, times: 1, headers: { "retry-after": "1" } });
  const refused = await get();
  assert.deepEqual([refused.status, refused.headers.get("retry-after")], [503, "1"]);

  server.fault("/a.bin", { noRanges: true });
  const whole = await get({ range: "bytes=0-9" });
  assert.deepEqual([whole.status, whole.headers.get("accept-ranges"), (await read(whole)).length], [200, null, 200_000]);

  server.fault("/a.bin", { length: 300_000 });
  const longer = await get();
  assert.equal(longer.headers.get("content-length"), "300000");
  await assert.rejects(read(longer));
  assert.equal((await get({ range: "bytes=0-9" })).headers.get("content-range"), "bytes 0-9/300000");

  server.fault("/a.bin", { noLength: true });
  const unknown = await get();
  assert.deepEqual([unknown.headers.get("content-length"), (await read(unknown)).length], [null, 200_000]);

  server.fault("/a.bin", { change: (bytes) => Buffer.from(bytes.map((byte) => byte ^ 1)) });
  assert.equal((await read(await get()))[7], BYTES[7] ^ 1);
  server.fault("/a.bin", null);
  assert.deepEqual(await read(await get()), BYTES);
});

test("the browser has WebGPU, is isolated, and its problems are seen", async () => {
  const browser = await launch();
  try {
    const { page, problems } = await open(browser, server.url);
    const seen = await page.evaluate(async () => {
      const adapter = await navigator.gpu.requestAdapter();
      return { adapter: adapter !== null, isolated: crossOriginIsolated };
    });
    assert.deepEqual(seen, { adapter: true, isolated: true });
    assert.deepEqual(problems, []);
    await page.evaluate(() => {
      console.error("said so");
      setTimeout(() => {
        throw new Error("nobody caught this");
      });
      const worker = new Worker(URL.createObjectURL(new Blob(['console.error("in a worker")'], { type: "text/javascript" })));
      return new Promise((resolve) => setTimeout(resolve, 500, worker));
    }).catch(() => {});
    for (const text of ["said so", "nobody caught this", "in a worker"]) {
      assert.ok(problems.some((problem) => problem.includes(text)), `${text}: ${problems}`);
    }
  } finally {
    await browser.close();
  }
});

test("a browser without a GPU has no adapter", async () => {
  const browser = await launch({ adapter: "none" });
  try {
    const { page } = await open(browser, server.url);
    assert.equal(await page.evaluate(async () => (await navigator.gpu?.requestAdapter()) ?? null), null);
  } finally {
    await browser.close();
  }
});
