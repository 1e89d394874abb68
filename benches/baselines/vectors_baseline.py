"""The suites `embed` and `search` by PyTorch on CUDA, in the rows that `bench --baseline` reads.

    python vectors_baseline.py embed MODEL_FOLDER TOKENS TEXTS
    python vectors_baseline.py search QUERIES [VECTORS DIMENSIONS K]

`embed` prints two rows: `tokens`, the model in float16 from token ids to vectors on the host, and `texts`, sentence-transformers
end to end, its tokenizer included. `search` is a product in float16 and torch.topk. Texts, tokens and vectors are those of the
benchmark (benches/src/embed.rs, benches/src/search.rs).

    pip install torch sentence-transformers numpy
"""

import json
import sys
import time

import torch

WORDS = ("the of and in to was he is as for on with that it his by at from "
         "her she you had an were but be this are not my they one").split()
REPEATS = 20


def text(index, words):
    return " ".join(WORDS[(index * 31 + j * (7 + index % 5) + j * j) % len(WORDS)] for j in range(words))


def samples(run):
    """Nanoseconds of each run until its answer is on the host, after three that warm up."""
    for _ in range(3):
        run()
    out = []
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        start = time.perf_counter_ns()
        run()
        out.append(time.perf_counter_ns() - start)
    return out


def say(suite, name, batch, n_prompt, times, **more):
    median = sorted(times)[len(times) // 2]
    print(json.dumps({"suite": suite, "name": name, "n_prompt": n_prompt, "n_gen": 0, "n_parallel": batch, "avg_ns": median,
                      "samples_ns": times, "peak_memory_bytes": torch.cuda.max_memory_allocated(),
                      "note": f"torch {torch.__version__}, float16", **more}), flush=True)


def embed(folder, tokens, batch):
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(folder, device="cuda").half().eval()
    bert = model[0].auto_model
    vocabulary = bert.config.vocab_size
    ids = torch.tensor([[(i * 104729 + j * 7919) % (vocabulary - 1) + 1 for j in range(tokens)] for i in range(batch)])
    ids = ids.cuda()

    def from_tokens():
        means = bert(input_ids=ids).last_hidden_state.mean(1)
        return torch.nn.functional.normalize(means, dim=1).float().cpu()

    texts = [text(i, tokens - 2) for i in range(batch)]
    with torch.inference_mode():
        times = samples(from_tokens)
        say("embed", "tokens", batch, tokens, times, texts_per_second=batch / sorted(times)[len(times) // 2] * 1e9)
        # The batch size that is fastest for it.
        best = None
        for size in (32, 128, 512):
            times = samples(lambda: model.encode(texts, batch_size=size, show_progress_bar=False))
            if best is None or sorted(times)[len(times) // 2] < sorted(best)[len(best) // 2]:
                best = times
        say("embed", "texts", batch, tokens, best, texts_per_second=batch / sorted(best)[len(best) // 2] * 1e9)


def search(count, vectors=1_000_000, dims=384, k=5):
    index = torch.nn.functional.normalize(torch.rand(vectors, dims, device="cuda") * 2 - 1, dim=1).half()
    queries = torch.nn.functional.normalize(torch.rand(count, dims, device="cuda") * 2 - 1, dim=1).half()
    times = samples(lambda: torch.topk(queries @ index.T, k, dim=1).indices.cpu())
    say("search", f"top-{k}", count, 0, times, queries_per_second=count / sorted(times)[len(times) // 2] * 1e9)


if __name__ == "__main__":
    torch.manual_seed(0)
    if sys.argv[1] == "embed":
        embed(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        search(*(int(argument) for argument in sys.argv[2:]))
