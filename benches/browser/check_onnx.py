"""Compares an export with anygpu's logits of the same file: check_onnx.py FOLDER DTYPE MODEL.gguf [COUNT]

Runs `anygpu eval --logits` for the reference (the program is `ANYGPU`, or target/release/anygpu), then onnxruntime on the
CPU, token by token through the cache, and all at once. Prints the normalised mean squared error of each.

Needs the packages numpy and onnxruntime.
"""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import onnxruntime

from export_onnx import FILES

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../..")


def reference(model, tokens):
    program = os.environ.get("ANYGPU", os.path.join(ROOT, "target/release/anygpu"))
    with tempfile.TemporaryDirectory() as folder:
        out = os.path.join(folder, "logits.npy")
        words = ["eval", "--model", model, "--tokens", ",".join(map(str, tokens)), "--logits", out]
        subprocess.run([program, *words], check=True, stdout=subprocess.DEVNULL)
        return np.load(out).astype(np.float64)


def main(folder, dtype, model, count="48"):
    with open(os.path.join(folder, "config.json")) as file:
        vocabulary = json.load(file)["vocab_size"]
    tokens = np.random.default_rng(7).integers(vocabulary // 4, vocabulary * 3 // 4, int(count))
    logits = reference(model, tokens)
    session = onnxruntime.InferenceSession(os.path.join(folder, "onnx", FILES[dtype] + ".onnx"))
    empty = {}
    for info in session.get_inputs():
        if info.name.startswith("past"):
            kind = np.float16 if "float16" in info.type else np.float32
            empty[info.name] = np.zeros((1, info.shape[1], 0, info.shape[3]), kind)
    names = [info.name for info in session.get_outputs()]

    def run(ids, past, length):
        feed = {"input_ids": ids[None], "attention_mask": np.ones((1, length), np.int64), **past}
        out = dict(zip(names, session.run(names, feed)))
        past = {name.replace("present", "past_key_values"): v for name, v in out.items() if name.startswith("present")}
        return out["logits"][0, -1].astype(np.float64), past

    def nmse(got, expected):
        return ((got - expected) ** 2).sum() / (expected**2).sum()

    past, steps = empty, []
    for i in range(len(tokens)):
        got, past = run(tokens[i : i + 1], past, i + 1)
        steps.append(got)
    steps = np.array(steps)
    at_once, _ = run(tokens, empty, len(tokens))
    agree = (steps.argmax(1) == logits.argmax(1)).mean()
    print(f"{dtype}: step by step {nmse(steps, logits):.3e}, at once {nmse(at_once, logits[-1]):.3e}, same best token {agree:.1%}")


if __name__ == "__main__":
    main(*sys.argv[1:])
