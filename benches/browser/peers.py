"""Measures anygpu, wllama and transformers.js in one Chromium on one GPU, each in a page of its own.

  peers.py site FOLDER                 copies the page, web/dist/anygpu and what is needed of node_modules to FOLDER
                                       (before: cargo xtask web, and npm ci --ignore-scripts in this folder)
  peers.py run --site FOLDER --gguf MODEL.gguf [--onnx FOLDER --dtype q4f16] --output FOLDER [...]
  peers.py suites --site FOLDER --gguf MODEL.gguf --output FOLDER [--profile NAME] [...]
                                       the native suites in the browser
  peers.py page --site FOLDER --output FOLDER [...]
                                       from opening the page to the first token of the shipped model, again and again, and
                                       the driver's GPU memory after loads and disposals (nvidia-smi)

A site needs no network: `run` serves it on a loopback port, opens page/peers.html for one engine after the other, and
writes report.json with the keys of `bench`. Only the standard library, so that a bare machine with a packed Chromium
runs it: --chromium PATH names that. --adapter: swiftshader (the processor), gpu, or gpu-f16 (as gpu, with f16 on NVIDIA,
which Chromium hides). See README.md for what is timed.
"""

import argparse
import http.server
import json
import os
import platform
import random
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "../..")
ENGINES = ["anygpu-browser", "wllama", "transformers.js"]
VULKAN = ["--enable-features=Vulkan", "--use-angle=vulkan", "--disable-vulkan-surface", "--ignore-gpu-blocklist"]
ADAPTERS = {
    "swiftshader": ["--use-webgpu-adapter=swiftshader"],
    "gpu": VULKAN,
    "gpu-f16": [*VULKAN, "--enable-dawn-features=vulkan_enable_f16_on_nvidia"],
}
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu-sandbox", "--no-first-run", "--disable-sync", "--disable-quic",
         "--disable-background-networking", "--disable-component-update", "--enable-unsafe-webgpu",
         "--remote-debugging-port=0"]
# The first tokens that two engines must agree on. Later ones may part where the two best logits lie within rounding.
AGREEING = 4


def copy_site(out):
    modules = os.path.join(HERE, "node_modules")
    wllama = os.path.join(modules, "@wllama/wllama")
    transformers = os.path.join(modules, "@huggingface/transformers")
    ort = os.path.join(modules, "onnxruntime-web/dist/ort-wasm-simd-threaded.asyncify")
    files = [
        (os.path.join(wllama, "esm/index.min.js"), "wllama"),
        (os.path.join(wllama, "esm/wasm/wllama.wasm"), "wllama/wasm"),
        (os.path.join(wllama, "package.json"), "wllama"),
        (os.path.join(transformers, "dist/transformers.min.js"), "transformers"),
        (ort + ".mjs", "ort"),
        (ort + ".wasm", "ort"),
    ]
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(os.path.join(HERE, "page"), os.path.join(out, "page"))
    shutil.copytree(os.path.join(ROOT, "web/dist"), os.path.join(out, "app"))
    for source, folder in files:
        os.makedirs(os.path.join(out, folder), exist_ok=True)
        shutil.copy(source, os.path.join(out, folder))


def vocabulary(path):
    """Tokens, the one that begins a text, and the kind of tokenizer, from a GGUF file's header."""
    kept = {"tokenizer.ggml.tokens", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.model", "tokenizer.ggml.add_bos_token"}
    sizes = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
    with open(path, "rb") as file:
        def number(form):
            return struct.unpack(form, file.read(struct.calcsize(form)))[0]

        def value(kind):
            if kind == 8:
                return file.read(number("<Q")).decode("utf-8", "replace")
            if kind == 9:
                item, count = number("<I"), number("<Q")
                return [value(item) for _ in range(count)]
            return number(sizes[kind])

        if file.read(4) != b"GGUF" or number("<I") not in (2, 3):
            raise SystemExit(f"{path}: no GGUF of version 2 or 3")
        number("<Q")
        found = {}
        for _ in range(number("<Q")):
            key = value(8)
            found[key] = value(number("<I"))
        found = {key: item for key, item in found.items() if key in kept}
    if "tokenizer.ggml.tokens" not in found:
        raise SystemExit(f"{path}: has no vocabulary, which wllama needs (random_gguf.py writes one)")
    kind = found.get("tokenizer.ggml.model", "")
    has_bos = found.get("tokenizer.ggml.add_bos_token", kind == "llama")
    return found["tokenizer.ggml.tokens"], found.get("tokenizer.ggml.bos_token_id", 1) if has_bos else None, kind


def make_prompts(options):
    """Prompts of random words, as token ids and as the text that has just these tokens. No two begin alike, so that
    no engine finds one in its cache."""
    tokens, bos, kind = vocabulary(options.gguf)
    space = "\u2581" if kind == "llama" else "\u0120"
    words = [i for i, token in enumerate(tokens) if re.fullmatch(space + "[a-z]{3,}|" + space + "w[1-9][0-9]+", token)]
    if len(words) < 100:
        raise SystemExit(f"{options.gguf}: {len(words)} words in its vocabulary, expected 100 or more")
    rng = random.Random(0)

    def prompt(length):
        ids = [rng.choice(words) for _ in range(length - (bos is not None))]
        text = "".join(" " + tokens[i][1:] for i in ids)
        # Tokenizers of this kind put a space before a text.
        return {"ids": ([] if bos is None else [bos]) + ids, "text": text[1:] if kind == "llama" else text}

    runs = options.repeats + 1
    return {"first": prompt(32), "prefill": [prompt(options.prompt) for _ in range(runs)],
            "decode": [prompt(16) for _ in range(runs)], "check": prompt(24)}


class Server(http.server.ThreadingHTTPServer):
    """The site, one GGUF file under /gguf/ and one ONNX export under /onnx/; what is sent to /result is kept."""

    daemon_threads = True

    def __init__(self, site, gguf, onnx, prompts):
        self.site, self.gguf, self.onnx, self.prompts = site, gguf, onnx, json.dumps(prompts).encode()
        self.result, self.came, self.missing = None, threading.Event(), []
        super().__init__(("127.0.0.1", 0), Handler)

    def file(self, path):
        path = urllib.parse.unquote(urllib.parse.urlsplit(path).path)
        parts = [part for part in path.split("/") if part]
        if ".." in parts or not parts:
            return None
        if parts[0] == "gguf":
            return self.gguf
        if parts[0] == "anygpu":
            parts.insert(0, "app")
        if parts[0] == "onnx":
            return self.onnx and os.path.join(self.onnx, *parts[2:])
        return os.path.join(self.site, *parts)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    types = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".json": "application/json",
             ".wasm": "application/wasm"}

    def headers_for(self, status, length, more=()):
        self.send_response(status)
        for name, value in (("Cross-Origin-Opener-Policy", "same-origin"), ("Cross-Origin-Embedder-Policy", "require-corp"),
                            ("Cache-Control", "no-store"), ("Content-Length", str(length)), *more):
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self, body=True):
        if self.path == "/prompts.json":
            self.headers_for(200, len(self.server.prompts))
            self.wfile.write(self.server.prompts)
            return None
        if self.path == "/memory.json":
            found = json.dumps({"bytes": driver_memory()}).encode()
            self.headers_for(200, len(found))
            self.wfile.write(found)
            return None
        file = self.server.file(self.path)
        if not file or not os.path.isfile(file):
            self.server.missing.append(self.path)
            return self.headers_for(404, 0)
        size = os.path.getsize(file)
        start, end, status, more = 0, size, 200, [("Accept-Ranges", "bytes")]
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes=") and "," not in asked:
            first, _, last = asked[6:].partition("-")
            start = int(first) if first else max(0, size - int(last))
            end = min(size, int(last) + 1) if first and last else size
            if start >= end:
                return self.headers_for(416, 0, [("Content-Range", f"bytes */{size}")])
            status = 206
            more.append(("Content-Range", f"bytes {start}-{end - 1}/{size}"))
        more.append(("Content-Type", self.types.get(os.path.splitext(file)[1], "application/octet-stream")))
        self.headers_for(status, end - start, more)
        if not body:
            return
        try:
            with open(file, "rb") as handle:
                self.connection.sendfile(handle, start, end - start)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do_HEAD(self):
        self.do_GET(body=False)

    def do_POST(self):
        self.server.result = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.headers_for(200, 0)
        self.server.came.set()

    def log_message(self, *_):
        pass


def driver_memory():
    """Bytes of GPU memory in use, by NVIDIA's driver; None without one."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]) << 20
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        return None


def visit(options, query, prompts=None, page="peers.html"):
    """Opens the page in a browser of its own and returns what it sent."""
    gguf, onnx = (path and os.path.abspath(path) for path in (options.gguf, options.onnx))
    server = Server(options.site, gguf, onnx, prompts)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = server.server_address[1]
    url = f"http://127.0.0.1:{port}/page/{page}?{urllib.parse.urlencode(query)}"
    folder = os.path.dirname(os.path.abspath(options.chromium))
    with tempfile.TemporaryDirectory() as home, tempfile.NamedTemporaryFile("w+", suffix=".log", delete=False) as log:
        env = {**os.environ, "HOME": home}
        if os.path.isdir(os.path.join(folder, "lib")):
            env["LD_LIBRARY_PATH"] = os.path.join(folder, "lib") + ":" + os.environ.get("LD_LIBRARY_PATH", "")
        flags = [*FLAGS, *ADAPTERS[options.adapter], f"--user-data-dir={home}/profile", "--enable-logging=stderr", "--v=0"]
        browser = subprocess.Popen([options.chromium, *flags, url], env=env, stdout=log, stderr=log)
        try:
            server.came.wait(options.seconds)
        finally:
            browser.terminate()
            try:
                browser.wait(20)
            except subprocess.TimeoutExpired:
                browser.kill()
                browser.wait()
            # Its helper processes end a little later, and hold the folder until then.
            time.sleep(1)
            shutil.rmtree(home, ignore_errors=True)
            os.makedirs(home, exist_ok=True)
            server.shutdown()
            server.server_close()
    result = server.result or {"error": f"no result in {options.seconds} s"}
    if "error" in result:
        print(f"{query.get('engine', page)}: {result['error']}\n  console: {log.name}; not found: {server.missing[-5:]}", file=sys.stderr)
    else:
        os.remove(log.name)
    return result


def rows_of(result, options, reference):
    """Rows with the keys of report.json."""
    name = os.path.splitext(os.path.basename(options.gguf))[0]

    def row(suite, **values):
        keys = dict(engine=result["engine"], suite=suite, model=options.model or name, synthetic=options.synthetic,
                    dtype=options.weights, batch=1, n_prompt=0, n_gen=0, n_depth=0, tokens_per_second=None, p50_ms=None,
                    p95_ms=None, p99_ms=None, peak_memory_bytes=None, bandwidth_share=None, check=None)
        return {**keys, **values}

    if "error" in result:
        return [row("decode", n_gen=options.tokens, check=f"unsupported: {result['error']}")]
    version = f"{result['engine'].removesuffix('-browser')} {result['version']}, {result['runsOn']}"
    check = agreement(result["answer"], reference)
    prefill = statistics.median(result["prefillMs"])
    rows = [
        row("load", name="load and first token", n_prompt=32, load_ms=result["loadMs"], first_ms=result["firstMs"], check=check,
            note=f"{version}; from the page's first request to the engine's code"),
        row("prefill", n_prompt=options.prompt, p50_ms=prefill, tokens_per_second=options.prompt / prefill * 1e3,
            samples=len(result["prefillMs"]), check=check, note=f"{version}; until the first token reaches the page"),
    ]
    if samples := [sample for sample in result["decode"] if sample["tokens"] > 0]:
        times = sorted(sample["ms"] / sample["tokens"] for sample in samples)
        p50 = statistics.median(times)
        written = min(sample["tokens"] for sample in samples) + 1
        rows.append(row("decode", n_gen=result["tokens"], n_depth=16, p50_ms=p50, tokens_per_second=1e3 / p50,
                        samples=len(samples), check=check,
                        note=f"{version}; between tokens that reach the page"
                        + (f"; the shortest answer had {written} tokens" if written < result["tokens"] else "")))
    return rows


def agreement(answer, reference):
    """`ok` when the answer begins as anygpu's does: as token ids where the engine tells them, else as text."""
    if reference is None or reference is answer:
        return None
    if answer.get("tokens") and reference.get("tokens"):
        ours, theirs = reference["tokens"][:AGREEING], answer["tokens"][:AGREEING]
        return "ok" if ours == theirs else f"tokens {theirs}, anygpu's are {ours}"
    ours, theirs = reference.get("text", ""), answer.get("text", "")
    shared = len(os.path.commonprefix([ours, theirs]))
    return "ok" if shared >= min(AGREEING, len(ours)) else f"begins with {theirs[:20]!r}, anygpu's answer with {ours[:20]!r}"


def environment(options, results):
    cpu = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            cpu = next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    version = subprocess.run([options.chromium, "--version"], capture_output=True, text=True).stdout.strip()
    adapter = next((r["adapter"] for r in results if r.get("adapter")), {})
    features = {"f16": "f16", "subgroups": "subgroups", "integerDot": "integer-dot", "timestamps": "timestamps"}
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "host": {"os": f"{platform.platform()}, {version}", "cpu": f"{cpu}, {os.cpu_count()} threads",
                 "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")},
        "adapter": {"name": adapter.get("name"), "driver": None, "backend": "browser",
                    "features": [shown for key, shown in features.items() if adapter.get("features", {}).get(key)]},
        "profile": options.profile or adapter.get("name"),
        "copy_bytes_per_second": None, "matrix_operations_per_second": None,
        "version": next((r["version"] for r in results if r.get("engine") == ENGINES[0] and "version" in r), None),
        "revision": None,
        "command": "peers.py " + " ".join(sys.argv[1:]),
    }


def write(options, report, results):
    os.makedirs(options.output, exist_ok=True)
    for name, value in (("report.json", report), ("pages.json", results)):
        with open(os.path.join(options.output, name), "w") as file:
            json.dump(value, file, indent=2)
            file.write("\n")
    for row in report["rows"]:
        figures = [f"{row[key]:.1f} {unit}" for key, unit in (("tokens_per_second", "tokens/s"), ("p50_ms", "ms"),
                   ("load_ms", "ms to load"), ("first_ms", "ms to the first token")) if row.get(key) is not None]
        print(f"{row['engine']:18}{row['suite']:9}{', '.join(figures):50}{row.get('check') or ''}")


def run(options):
    query = {"gguf": f"/gguf/{os.path.basename(options.gguf)}", "onnx": "model", "dtype": options.dtype,
             "tokens": options.tokens, "context": options.context, "profile": options.profile or ""}
    prompts = make_prompts(options)
    results, rows, reference = [], [], None
    for engine in options.engines.split(","):
        if engine == "transformers.js" and not options.onnx:
            continue
        result = visit(options, {**query, "engine": engine}, prompts)
        result.setdefault("engine", engine)
        results.append(result)
        if engine == ENGINES[0]:
            reference = result.get("answer")
        rows += rows_of(result, options, reference)
    write(options, {"schema": 1, "environment": environment(options, results), "rows": rows}, results)
    return 1 if any("error" in result for result in results) else 0


def suites(options):
    query = {"engine": "anygpu-suites", "gguf": f"/gguf/{os.path.basename(options.gguf)}", "profile": options.profile or "",
             "context": options.context, "suites": options.suites, "prompts": options.prompts, "depths": options.depths,
             "tokens": options.tokens, "repeats": options.repeats, "check": str(not options.no_check).lower(),
             "ahead": options.ahead or ""}
    result = visit(options, query)
    if "report" not in result:
        return 1
    for row in result["report"]["rows"]:
        row["engine"] = ENGINES[0]
    write(options, result["report"], [result])
    return 0


def page(options):
    names = {"first-contentful-paint": "first_paint_ms", "anygpu:load": "load_ms", "anygpu:ready": "ready_ms",
             "anygpu:first-token": "first_token_ms"}
    opened, reloaded = [], []
    for _ in range(options.repeats):
        result = visit(options, {"reloads": options.reloads}, page="first.html")
        if "error" in result:
            return 1
        shown = [{names[key]: value and round(value) for key, value in times.items()}
                 for times in [result["opened"], *result["reloaded"]]]
        opened.append(shown[0])
        reloaded += shown[1:]
    before = driver_memory()
    loads = visit(options, {"loads": options.loads}, page="loads.html")
    found = {
        "environment": environment(options, []),
        "opened_first_token_p50_ms": statistics.median(times["first_token_ms"] for times in opened),
        "reloaded_first_token_p50_ms": statistics.median(times["first_token_ms"] for times in reloaded),
        "opened": opened,
        "reloaded": reloaded,
        "driver_memory_bytes": {"before_the_browser": before, "with_a_model": loads.get("loaded"),
                                "after_each_disposal": loads.get("driver")},
        "page_heap_bytes_after_each_disposal": loads.get("page"),
    }
    os.makedirs(options.output, exist_ok=True)
    with open(os.path.join(options.output, "page.json"), "w") as file:
        json.dump(found, file, indent=2)
        file.write("\n")
    print(f"first token {found['opened_first_token_p50_ms']} ms after opening, {found['reloaded_first_token_p50_ms']} ms after a reload")
    print(f"driver's memory: {loads.get('loaded')} bytes with a model, {loads.get('driver')} after disposals")
    return 1 if "error" in loads else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("site").add_argument("folder")
    for name in ("run", "suites", "page"):
        command = commands.add_parser(name)
        command.add_argument("--site", required=True)
        command.add_argument("--gguf", required=name != "page")
        command.add_argument("--output", required=True)
        command.add_argument("--chromium", default=shutil.which("chromium") or "chromium")
        command.add_argument("--adapter", choices=ADAPTERS, default="swiftshader")
        command.add_argument("--seconds", type=float, default=600, help="limit for a page")
        command.add_argument("--tokens", type=int, default=128)
        command.add_argument("--repeats", type=int, default=5)
        command.add_argument("--context", type=int, default=2048)
        command.add_argument("--profile", help="stored profile that anygpu is clipped to")
        command.add_argument("--onnx", help="folder of export_onnx.py")
        if name == "run":
            command.add_argument("--dtype", default="q4f16", help="which of the export's")
            command.add_argument("--prompt", type=int, default=512)
            command.add_argument("--engines", default=",".join(ENGINES))
            command.add_argument("--model", help="name in the report")
            command.add_argument("--weights", default="q4_0", help="type of the GGUF's weights, for the report")
            command.add_argument("--synthetic", action="store_true", help="the weights were made up")
        elif name == "page":
            command.add_argument("--reloads", type=int, default=3)
            command.add_argument("--loads", type=int, default=51)
        else:
            command.add_argument("--suites", default="load,prefill,decode,memory")
            command.add_argument("--prompts", default="512")
            command.add_argument("--depths", default="0")
            command.add_argument("--no-check", action="store_true")
            command.add_argument("--ahead", type=int, help="decode steps submitted ahead; without it the engine's own number")
    options = parser.parse_args()
    if options.command == "site":
        copy_site(options.folder)
        return 0
    return {"run": run, "suites": suites, "page": page}[options.command](options)


if __name__ == "__main__":
    sys.exit(main())
