"""The suites `embed` and `search` by PyTorch, in the rows that `bench --baseline` reads: in float16 on CUDA, or, to try the
script where there is none, in float32 on the CPU.

    python vectors_baseline.py embed MODEL_FOLDER TOKENS TEXTS
    python vectors_baseline.py search VECTORSxDIMENSIONS QUERIES [K]

`embed` prints two rows: `tokens`, the model from token ids on the device to vectors on the host, and `texts`,
sentence-transformers end to end, its tokenizer included, at the batch size that is fastest for it. `search` is a product and
torch.topk, ids and scores on the host. Texts, tokens and vectors are those of the benchmark (benches/src/embed.rs,
benches/src/search.rs). Each row's answer is checked against float32, search's against an exact one.

    pip install torch sentence-transformers numpy
"""

import json
import sys
import time

import numpy as np
import torch

WORDS = ("the of and in to was he is as for on with that it his by at from "
         "her she you had an were but be this are not my they one").split()
REPEATS = 20
CUDA = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda", torch.float16) if CUDA else ("cpu", torch.float32)


def text(index, words):
    return " ".join(WORDS[(index * 31 + j * (7 + index % 5) + j * j) % len(WORDS)] for j in range(words))


def token_ids(count, tokens, vocabulary):
    return [[(i * 104729 + j * 7919) % (vocabulary - 1) + 1 for j in range(tokens)] for i in range(count)]


def vectors(ids, dims):
    """Those of the benchmark: xorshift64* (Vigna 2016) from a state for each id, uniform in [-1, 1)."""
    state = (ids.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    out = np.empty((len(ids), dims), np.float32)
    for j in range(dims):
        state ^= state >> np.uint64(12)
        state ^= state << np.uint64(25)
        state ^= state >> np.uint64(27)
        bits = (state * np.uint64(0x2545F4914F6CDD1D)) >> np.uint64(40)
        out[:, j] = bits.astype(np.float32) / np.float32(8388608) - np.float32(1)
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def samples(run):
    """Nanoseconds of each run until its answer is on the host, after a second of products that clock the GPU up and a fifth of
    a second of runs, three at least; and the peak of memory."""
    wait = torch.cuda.synchronize if CUDA else lambda: None
    run()
    if CUDA:
        square = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)
        begun = time.perf_counter()
        while time.perf_counter() - begun < 1:
            for _ in range(16):
                square @ square
            wait()
        del square
        torch.cuda.reset_peak_memory_stats()
    begun, runs = time.perf_counter(), 0
    while runs < 3 or time.perf_counter() - begun < 0.2:
        run()
        runs += 1
    out = []
    for _ in range(REPEATS if CUDA else 3):
        wait()
        start = time.perf_counter_ns()
        run()
        out.append(time.perf_counter_ns() - start)
    return out, torch.cuda.max_memory_allocated() if CUDA else None


def median(times):
    return sorted(times)[len(times) // 2]


def say(suite, name, batch, n_prompt, samples, check, **more):
    times, peak = samples
    memory = {"peak_memory_bytes": peak} if peak else {}
    print(json.dumps({"suite": suite, "name": name, "n_prompt": n_prompt, "n_gen": 0, "n_parallel": batch,
                      "avg_ns": median(times), "samples_ns": times, "check": check, **memory,
                      "note": f"torch {torch.__version__}, {str(DTYPE).removeprefix('torch.')}", **more}), flush=True)


def verdict(found, expected):
    cosine = torch.nn.functional.cosine_similarity(torch.as_tensor(found).float(), torch.as_tensor(expected).float())
    worst = cosine.min().item()
    return "ok" if worst >= 0.999 else f"cosine {worst:.5f}"


def embed(folder, tokens, batch):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device=DEVICE).to(DTYPE).eval()
    exact = SentenceTransformer(folder, device=DEVICE).eval()
    vocabulary = model[0].auto_model.config.vocab_size
    ids = torch.tensor(token_ids(batch, tokens, vocabulary)).to(DEVICE)

    def from_tokens(model, ids):
        means = model[0].auto_model(input_ids=ids).last_hidden_state.mean(1)
        return torch.nn.functional.normalize(means, dim=1).float().cpu()

    def from_texts(model, texts, size=32):
        return model.encode(texts, batch_size=size, show_progress_bar=False)

    texts = [text(i, tokens - 2) for i in range(batch)]
    with torch.inference_mode():
        check = verdict(from_tokens(model, ids[:4]), from_tokens(exact, ids[:4]))
        found = samples(lambda: from_tokens(model, ids))
        say("embed", "tokens", batch, tokens, found, check, texts_per_second=batch / median(found[0]) * 1e9)
        check = verdict(from_texts(model, texts[:4]), from_texts(exact, texts[:4]))
        sizes = [size for size in (32, 128, 512) if size < batch or size == 32]
        runs = (samples(lambda size=size: from_texts(model, texts, size)) for size in sizes)
        found = min(runs, key=lambda run: median(run[0]))
        say("embed", "texts", batch, tokens, found, check, texts_per_second=batch / median(found[0]) * 1e9)


def search(shape, count, k=5):
    n, dims = (int(size) for size in shape.split("x"))
    units = vectors(np.arange(n), dims)
    queries = vectors(np.arange(count) | 1 << 40, dims)
    index, asked = (torch.from_numpy(values).to(DEVICE, DTYPE) for values in (units, queries))

    def run():
        found = torch.topk(asked @ index.T, k, dim=1)
        return found.indices.cpu(), found.values.cpu()

    with torch.inference_mode():
        ids, _ = run()
        # The scores of what was found are those of the best, but for rounding.
        exact = units @ queries[0]
        found, best = np.sort(exact[ids[0].numpy()]), np.sort(exact)[-k:]
        check = "ok" if np.abs(found - best).max() < 1e-3 else f"scores {found}, expected {best}"
        found = samples(run)
    say("search", f"top-{k}", count, 0, found, check, queries_per_second=count / median(found[0]) * 1e9)


if __name__ == "__main__":
    if sys.argv[1] == "embed":
        embed(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        search(sys.argv[2], *(int(argument) for argument in sys.argv[3:]))
