// Puts the site together: node assemble.mjs --package FOLDER [--burn FOLDER] --models FOLDER --output FOLDER --cache FOLDER [--quick]
//
//   --package   what wasm-pack wrote
//   --burn      the same of the entry `anygpu/burn`, which is left out without it
//   --models    GGUF files that the site brings along
//   --output    the site: index.html, page/, anygpu/ (the npm package), models/
//   --cache     optimised WASM by the hash of its input
//   --quick     without wasm-opt, for a developer's loop; no size is checked

import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { constants as files } from "node:fs";
import { copyFile, cp, mkdir, readFile, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import { brotliCompress, constants } from "node:zlib";
import { build } from "esbuild";

/**
 * Entries of the package, by the option that names their WASM: how much that may weigh on its way to a browser, and how hard
 * wasm-opt works on it. Of what Burn is, several times as much as the rest, more would take minutes and save little.
 */
const ENTRIES = {
  package: { largestBrotliBytes: 2_000_000, effort: "-O3" },
  burn: { largestBrotliBytes: 4_000_000, effort: "-O1" },
};
/** What rustc compiles for and every browser with WebGPU has. */
const FEATURES = ["bulk-memory", "bulk-memory-opt", "multivalue", "mutable-globals", "nontrapping-float-to-int", "reference-types", "sign-ext", "simd"];

const WEB = dirname(fileURLToPath(import.meta.url));
const run = promisify(execFile);
const { values } = parseArgs({
  options: {
    package: { type: "string" },
    burn: { type: "string" },
    models: { type: "string" },
    output: { type: "string" },
    cache: { type: "string" },
    quick: { type: "boolean", default: false },
  },
});
for (const name of ["package", "models", "output", "cache"]) {
  if (!values[name]) throw new Error(`assemble.mjs: --${name} is missing`);
}
const output = resolve(values.output);
const npm = join(output, "anygpu");

await rm(output, { recursive: true, force: true });
await mkdir(npm, { recursive: true });
await cp(join(WEB, "js"), npm, { recursive: true });
await cp(join(WEB, "page"), join(output, "page"), { recursive: true });
await copyFile(join(WEB, "index.html"), join(output, "index.html"));
await models(join(output, "models"));
// Side by side: optimising and compressing take one core each.
const entries = Object.keys(ENTRIES).filter((name) => values[name]);
const wasm = await Promise.all(entries.map((name) => bindings(values[name], ENTRIES[name].effort)));
if (!values.burn) for (const name of await readdir(npm)) if (name.startsWith("burn")) await rm(join(npm, name));
await bundled(npm, ["index.js", "openai.js", "worker.js", ...(values.burn ? ["burn.js", "burn-worker.js"] : [])]);
await bundled(join(output, "page"), ["boot.js", "main.js"]);
await manifest();
await Promise.all(entries.map((name, index) => weigh(wasm[index], ENTRIES[name].largestBrotliBytes)));

/** Says how large a WASM is; throws where it is larger than it may be. */
async function weigh(wasm, largest) {
  const text = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`;
  if (values.quick) return console.log(`${wasm}: ${text((await stat(wasm)).size)}, not optimised`);
  const bytes = await readFile(wasm);
  const compressed = await promisify(brotliCompress)(bytes, {
    params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_LGWIN]: 24, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
  });
  console.log(`${wasm}: ${text(bytes.length)}, ${text(compressed.length)} with brotli`);
  if (compressed.length > largest) throw new Error(`${wasm}: ${compressed.length} bytes with brotli, expected at most ${largest}`);
}

/** Takes what wasm-pack wrote, its WASM optimised, and returns the path of that. */
async function bindings(folder, effort) {
  let wasm;
  for (const name of await readdir(folder)) {
    const from = join(folder, name);
    const to = join(npm, name);
    if (name.endsWith(".wasm")) {
      wasm = to;
      await copyFile(values.quick ? from : await optimised(from, effort), to);
    } else if (name.endsWith(".js") || name.endsWith(".ts")) {
      if (await exists(to)) throw new Error(`web/js/${name} has the name of a file of wasm-bindgen's`);
      await copyFile(from, to);
    }
  }
  if (!wasm) throw new Error(`${folder}: no WASM in it`);
  return wasm;
}

async function optimised(path, effort) {
  const { version } = JSON.parse(await readFile(join(WEB, "node_modules/binaryen/package.json"), "utf8"));
  const flags = [effort, "--strip-producers", "--strip-debug", ...FEATURES.map((feature) => `--enable-${feature}`)];
  const hash = createHash("sha256").update(await readFile(path)).update(JSON.stringify([version, flags]));
  const kept = join(values.cache, `${hash.digest("hex").slice(0, 32)}.wasm`);
  if (await exists(kept)) return kept;
  await mkdir(values.cache, { recursive: true });
  const unfinished = `${kept}.${process.pid}`;
  const program = join(WEB, "node_modules/binaryen/bin/wasm-opt");
  await run(process.execPath, [program, path, "-o", unfinished, ...flags], { maxBuffer: 1 << 26 });
  await rename(unfinished, kept);
  return kept;
}

/**
 * Makes one file of each of `entries` and the modules that it imports, which go: a browser would ask for them level by
 * level. An entry that another imports stays a module of its own.
 */
async function bundled(folder, entries) {
  const shared = {
    name: "entries",
    setup(build) {
      build.onResolve({ filter: /^\.\.?\// }, ({ path, importer }) => {
        const elsewhere = !path.startsWith("./") || entries.includes(path.slice(2));
        return importer && elsewhere ? { path, external: true } : undefined;
      });
    },
  };
  const { outputFiles, metafile } = await build({
    absWorkingDir: folder,
    entryPoints: entries,
    outdir: folder,
    plugins: [shared],
    bundle: true,
    format: "esm",
    target: "es2022",
    charset: "utf8",
    metafile: true,
    write: false,
    logLevel: "warning",
  });
  for (const name of Object.keys(metafile.inputs)) await rm(join(folder, name));
  for (const { path, contents } of outputFiles) await writeFile(path, contents);
}

async function models(folder) {
  await mkdir(folder);
  for (const name of (await readdir(values.models)).filter((name) => name.endsWith(".gguf"))) {
    await copyFile(join(values.models, name), join(folder, name), files.COPYFILE_FICLONE);
  }
}

/** The manifest as it is published: what only this repository needs is left out. */
async function manifest() {
  const { private: _, devDependencies: __, scripts: ___, ...published } = JSON.parse(await readFile(join(WEB, "package.json"), "utf8"));
  if (!values.burn) delete published.exports["./burn"];
  await writeFile(join(npm, "package.json"), `${JSON.stringify(published, null, 2)}\n`);
  for (const licence of ["LICENSE-APACHE", "LICENSE-MIT"]) await copyFile(join(WEB, "..", licence), join(npm, licence));
}

async function exists(path) {
  return (await stat(path).catch(() => null)) !== null;
}
