// What the page makes of texts and numbers, without a browser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bugReport } from "../../page/bug-report.js";
import { figuresOf } from "../../page/chart.js";
import * as figures from "../../page/figures.js";
import { parse, stable } from "../../page/markdown.js";
import { browser, explain, progress, withoutWebGpu } from "../../page/words.js";

const AGENTS = {
  chrome: "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36",
  edge: "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36 Edg/156.0.0.0",
  firefox: "Mozilla/5.0 (X11; Linux x86_64; rv:150.0) Gecko/20100101 Firefox/150.0",
  safari: "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Safari/605.1.15",
  iphone: "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/156.0 Mobile/15E148 Safari/604.1",
};

test("markdown: blocks of what models write", () => {
  const kinds = (text) => parse(text).map((block) => block.kind);
  for (const [text, expected] of [
    ["plain", ["paragraph"]],
    ["one\ntwo\n\nthree", ["paragraph", "paragraph"]],
    ["# Title\ntext", ["heading", "paragraph"]],
    ["text\n- a\n- b", ["paragraph", "list"]],
    ["- a\n\n- b\n\nafter", ["list", "paragraph"]],
    ["- a\n1. b", ["list", "list"]],
    ["```rust\n# not a title\n- nor a list\n\n```\nafter", ["code", "paragraph"]],
    ["```\nnever closed\n- x", ["code"]],
    ["````\n```\n````", ["code"]],
    ["> a\n> b\nc", ["quote", "paragraph"]],
    ["a\n\n---\n\nb", ["paragraph", "rule", "paragraph"]],
    ["", []],
    ["2. two\n3. three", ["list"]],
  ]) {
    assert.deepEqual(kinds(text), expected, JSON.stringify(text));
  }
  assert.equal(parse("```rust\nfn f() {}\n\nlet x;\n```")[0].text, "fn f() {}\n\nlet x;");
  assert.equal(parse("2. two\n3. three")[0].first, 2);
  assert.deepEqual(parse("- a\n  - b\n- c")[0].items.map((item) => item.depth), [0, 1, 0]);
});

test("markdown: text that arrives in pieces ends as text that arrives whole", () => {
  const text = "# A\n\nOne **two**\nthree\n\n- a\n  - b\n\n- c\n\n```js\nlet a = 1;\n\n- no\n```\n\n> q\n\n1. x\n2. y\n\nend";
  const whole = parse(text).map(({ start, ...block }) => block);
  for (let size = 1; size < 9; size++) {
    // As Stream does it: blocks that are stable are kept, the rest is parsed again.
    let kept = [];
    let start = 0;
    for (let end = size; end < text.length + size; end += size) {
      const rest = text.slice(start, end);
      const at = end >= text.length ? rest.length + 1 : stable(rest);
      kept.push(...parse(rest).filter((block) => block.start < at));
      start += at;
    }
    kept = kept.map(({ start, ...block }) => block);
    assert.deepEqual(kept, whole, `pieces of ${size}`);
  }
});

test("figures", () => {
  for (const [found, expected] of [
    [figures.bytes(0), "0 bytes"],
    [figures.bytes(1536), "1.5 KiB"],
    [figures.bytes(3_825_065_984), "3.56 GiB"],
    [figures.bytes(undefined), "unknown"],
    [figures.significant(12_345.6), "12,346"],
    [figures.significant(0.01234), "0.0123"],
    [figures.duration(0.251), "0.251 ms"],
    [figures.duration(3210), "3.2 s"],
    [figures.duration(125_000), "2 min 5 s"],
    [figures.duration(7_260_000), "2 h 1 min"],
    [figures.parameters(6_738_415_616), "6.74 billion"],
    [figures.error(2.14e-8), "2.1e-8"],
    [figures.error(null), "–"],
    [figures.test({ n_prompt: 512, n_gen: 0, n_depth: 0, batch: 1 }), "pp512"],
    [figures.test({ n_prompt: 0, n_gen: 128, n_depth: 1024, batch: 8 }), "tg128 @ d1024 × 8"],
    [figures.test({ name: "matvec ffn", n_prompt: 0, n_gen: 1, n_depth: 0, batch: 1 }), "matvec ffn tg1"],
  ]) {
    assert.equal(found, expected);
  }
});

test("without WebGPU: the reader's own browser comes first, with what to do in it", () => {
  for (const [agent, first, words] of [
    ["chrome", "Chrome and Edge", /--enable-unsafe-webgpu/],
    ["edge", "Chrome and Edge", /graphics acceleration/],
    ["firefox", "Firefox", /dom\.webgpu\.enabled/],
    ["safari", "Safari", /Version 26/],
    ["iphone", "Safari", /same engine/],
  ]) {
    const { browsers } = withoutWebGpu({ secure: true, gpu: false, agent: AGENTS[agent], address: "" });
    assert.equal(browsers[0].name, first, agent);
    assert.match(browsers[0].steps.join(" "), words, agent);
    assert.equal(browsers.length, 3);
  }
  assert.equal(browser(AGENTS.edge), "edge");
  const insecure = withoutWebGpu({ secure: false, gpu: false, agent: AGENTS.chrome, address: "http://192.168.0.9:8080" });
  assert.match(insecure.title, /not secure/);
  assert.match(insecure.why, /http:\/\/192\.168\.0\.9:8080/);
  assert.match(withoutWebGpu({ secure: true, gpu: true, agent: AGENTS.chrome, address: "" }).title, /no GPU/);
});

test("every kind of error has words of its own", () => {
  for (const name of ["Format", "Unsupported", "Shape", "Adapter", "OutOfMemory", "DeviceLost", "Tokenizer", "Io", "Cancelled", "QuotaExceededError"]) {
    const { title, message } = explain(Object.assign(new Error("the engine's words"), { name }));
    assert.notEqual(title, explain(new Error("x")).title, name);
    assert.equal(message, "the engine's words", name);
  }
  // What is not the engine's own stays whole.
  assert.match(explain(new TypeError("x is undefined")).message, /TypeError: x is undefined/);
});

test("progress", () => {
  assert.equal(progress({ phase: "download", loadedBytes: 512 * 1024, totalBytes: 1024 * 1024 }), "Downloading · 50 % · 512 KiB of 1 MiB");
  assert.match(progress({ phase: "download", loadedBytes: 1, totalBytes: 2, fromCache: true }), /cache/);
  assert.match(progress({ phase: "compile", loadedBytes: 0, totalBytes: 0 }), /Compiling/);
});

test("the bug report names adapter, browser and failing cases, and stays one table", () => {
  const text = bugReport({
    adapter: { name: "GPU `x`", features: { f16: true, subgroups: false }, subgroup: { min: 4, max: 4 }, limits: { maxBufferBytes: 5, maxWorkgroupSize: [1, 2, 3] } },
    rows: [
      { name: "copy 4", nmse: 0, failure: null },
      { name: "matmul q4_0", nmse: 0.31, failure: "NMSE 0.31 | above\n1e-6" },
    ],
    profile: "webgpu-baseline",
    complete: false,
    agent: "Chromium 156",
  });
  assert.match(text, /Adapter: `GPU 'x'`/);
  assert.match(text, /Features: f16$/m);
  assert.match(text, /Limits: maxBufferBytes 5, maxWorkgroupSize 1×2×3/);
  assert.match(text, /1 of 2 cases pass; the run was not finished/);
  assert.match(text, /\| matmul q4_0 \| 3\.1e-1 \| NMSE 0\.31 \\\| above 1e-6 \|/);
  assert.doesNotMatch(text, /copy 4/);
});

test("charts: a figure a suite, kernels by what they take", () => {
  const row = (suite, more) => ({ suite, n_prompt: 0, n_gen: 1, n_depth: 0, batch: 1, check: "ok", ...more });
  const rows = [
    row("kernels", { name: "a", p50_ms: 1 }),
    row("kernels", { name: "b", p50_ms: 3 }),
    row("decode", { tokens_per_second: 40, check: "differs" }),
    row("memory", { peak_memory_bytes: 5 }),
  ];
  const found = figuresOf(rows, figures.test, figures.significant);
  assert.deepEqual(found.map(({ bars }) => bars.map(({ label }) => label)), [["b tg1", "a tg1"], ["tg1"]]);
  assert.equal(found[1].bars[0].bad, true);
});
