"""Trains the shipped model on one GPU, within a set time.

    python train.py --data DIR --out DIR --minutes 4.0 [--tiny]

DIR is what `prepare.py` wrote. The learning rate follows the share of the time that has passed, so the run ends on time
with a decayed rate on any machine. Matrices are trained with Muon (Jordan et al., 2024: momentum orthogonalised by a
Newton-Schulz iteration), the embedding and the norms with AdamW.

Output: model.npz (tensors under their GGUF names, matrices float16, norms float32), best.npz where an earlier state did
better on the held-out text, log.txt, samples.txt and result.json.
"""

import argparse
import json
import math
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

FILES = ["text.npy", "text.starts.npy", "source.npy", "source.starts.npy", "chat.npy", "chat.starts.npy", "held_out.npy",
         "tokenizer.json", "meta.json"]
# Share of every batch, and how often a row begins exactly where a document does.
STREAMS = {"text": (0.53, 0.5), "source": (0.12, 0.5), "chat": (0.35, 1.0)}
BEGIN = 0


class Config:
    vocabulary, width, layers, heads, kv_heads, head, ffn, context = 4096, 256, 6, 4, 2, 64, 768, 2048
    eps, rope_base, dropout = 1e-5, 10000.0, 0.1


def rms_norm(x, weight, eps):
    y = x.float()
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + eps) * weight).to(x.dtype)


def rope(x, cos, sin):
    """Rotates neighbouring pairs, GGUF's order for llama. x: [batch, heads, tokens, head]."""
    a, b = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c

        def matrix(rows, cols, std):
            return nn.Parameter(torch.randn(rows, cols) * std)

        out = 0.02 / math.sqrt(2 * c.layers)
        self.attn_norm = nn.Parameter(torch.ones(c.width))
        self.attn_q = matrix(c.heads * c.head, c.width, 0.02)
        self.attn_k = matrix(c.kv_heads * c.head, c.width, 0.02)
        self.attn_v = matrix(c.kv_heads * c.head, c.width, 0.02)
        self.attn_output = matrix(c.width, c.heads * c.head, out)
        self.ffn_norm = nn.Parameter(torch.ones(c.width))
        self.ffn_gate = matrix(c.ffn, c.width, 0.02)
        self.ffn_up = matrix(c.ffn, c.width, 0.02)
        self.ffn_down = matrix(c.width, c.ffn, out)

    def forward(self, x, cos, sin):
        c = self.c
        batch, tokens, _ = x.shape
        drop = c.dropout if self.training else 0.0
        h = rms_norm(x, self.attn_norm, c.eps)
        q = F.linear(h, self.attn_q).view(batch, tokens, c.heads, c.head).transpose(1, 2)
        k = F.linear(h, self.attn_k).view(batch, tokens, c.kv_heads, c.head).transpose(1, 2)
        v = F.linear(h, self.attn_v).view(batch, tokens, c.kv_heads, c.head).transpose(1, 2)
        q, k = rope(q, cos, sin), rope(k, cos, sin)
        group = c.heads // c.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        h = F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True)
        h = F.linear(h.transpose(1, 2).reshape(batch, tokens, -1), self.attn_output)
        x = x + F.dropout(h, drop, self.training)
        h = rms_norm(x, self.ffn_norm, c.eps)
        h = F.linear(F.silu(F.linear(h, self.ffn_gate)) * F.linear(h, self.ffn_up), self.ffn_down)
        return x + F.dropout(h, drop, self.training)


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.token_embd = nn.Parameter(torch.randn(c.vocabulary, c.width) * 0.02)
        self.blk = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.output_norm = nn.Parameter(torch.ones(c.width))
        frequency = c.rope_base ** (-torch.arange(0, c.head, 2).float() / c.head)
        angle = torch.arange(c.context).float()[:, None] * frequency
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids):
        x = F.embedding(ids, self.token_embd)
        x = F.dropout(x, self.c.dropout if self.training else 0.0, self.training)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for block in self.blk:
            x = block(x, cos, sin)
        return F.linear(rms_norm(x, self.output_norm, self.c.eps), self.token_embd)

    def loss(self, ids):
        logits = self(ids[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())


def orthogonalised(g):
    """Newton-Schulz iteration towards the nearest orthogonal matrices. g: [n, rows, cols]."""
    x = g.bfloat16()
    flip = x.shape[1] > x.shape[2]
    x = x.mT if flip else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x.mT if flip else x).float()


class Muon:
    """Momentum, orthogonalised, for lists of matrices; those of one shape go together."""

    def __init__(self, params, lr, decay):
        self.lr, self.decay = lr, decay
        shapes = {}
        for p in params:
            shapes.setdefault(tuple(p.shape), []).append(p)
        self.groups = [(ps, torch.zeros(len(ps), *shape, device=ps[0].device)) for shape, ps in shapes.items()]

    @torch.no_grad()
    def step(self, rate):
        lr = self.lr * rate
        for params, momentum in self.groups:
            g = torch.stack([p.grad for p in params]).float()
            momentum.lerp_(g, 0.05)
            rows, cols = params[0].shape
            update = orthogonalised(g.lerp(momentum, 0.95)) * math.sqrt(max(1.0, rows / cols))
            torch._foreach_mul_(params, 1 - lr * self.decay)
            torch._foreach_add_(params, list(update.unbind(0)), alpha=-lr)


class Data:
    """Token streams on the device, and batches drawn from them."""

    def __init__(self, folder, device):
        self.device, self.streams = device, {}
        for name in STREAMS:
            ids = torch.from_numpy(np.load(os.path.join(folder, name + ".npy")).astype(np.int64)).to(device)
            starts = torch.from_numpy(np.load(os.path.join(folder, name + ".starts.npy")).astype(np.int64)).to(device)
            self.streams[name] = (ids, starts)
        self.held_out = torch.from_numpy(np.load(os.path.join(folder, "held_out.npy")).astype(np.int64)).to(device)

    def batch(self, rows, length, only=None):
        parts, left = [], rows
        names = list(STREAMS) if only is None else [only]
        for n, name in enumerate(names):
            ids, starts = self.streams[name]
            count = left if n == len(names) - 1 else min(left, max(1, round(rows * STREAMS[name][0])))
            left -= count
            at = torch.randint(0, len(ids) - length - 1, (count,), device=self.device)
            begin = starts[(torch.searchsorted(starts, at, right=True) - 1).clamp_min(0)]
            snap = torch.rand(count, device=self.device) < STREAMS[name][1]
            at = torch.where(snap, begin, at)
            parts.append(ids[at[:, None] + torch.arange(length + 1, device=self.device)])
        return torch.cat(parts)


def autocast(device):
    return torch.autocast(device, dtype=torch.bfloat16)


@torch.no_grad()
def held_out_loss(model, data, window, device, exact=False):
    """Mean loss over the held-out text in windows that do not overlap, each behind the begin token."""
    model.eval()
    total, count = 0.0, 0
    ids = data.held_out
    for at in range(0, len(ids), window - 1):
        piece = torch.cat([torch.full((1,), BEGIN, device=ids.device), ids[at : at + window - 1]])[None]
        if exact:
            loss = model.loss(piece)
        else:
            with autocast(device):
                loss = model.loss(piece)
        total += loss.item() * (piece.shape[1] - 1)
        count += piece.shape[1] - 1
    model.train()
    return total / count


@torch.no_grad()
def generate(model, ids, count, stops, device, temperature=0.0, seed=0):
    model.eval()
    torch.manual_seed(seed)
    ids = torch.tensor([ids], device=device)
    for _ in range(count):
        with autocast(device):
            logits = model(ids[:, -model.c.context :])[0, -1].float()
        if temperature:
            top = logits.topk(40)
            chance = F.softmax(top.values / temperature, -1)
            token = top.indices[torch.multinomial(chance, 1)]
        else:
            token = logits.argmax(-1, keepdim=True)
        ids = torch.cat([ids, token[None]], 1)
        if token.item() in stops:
            break
    model.train()
    return ids[0].tolist()


def tensors(model):
    out = {"token_embd.weight": model.token_embd, "output_norm.weight": model.output_norm}
    for n, block in enumerate(model.blk):
        for name, p in block.named_parameters():
            out[f"blk.{n}.{name}.weight"] = p
    # Norms stay float32, as GGUF files have them.
    return {k: p.detach().float().cpu().numpy().astype(np.float32 if p.ndim == 1 else np.float16) for k, p in out.items()}


def save(model, path):
    values = tensors(model)
    assert all(np.isfinite(v).all() for v in values.values()), "a weight does not fit float16"
    np.savez(path, **values)


def rate(done):
    """Learning rate as a share of its peak: warm-up, plateau, linear decay."""
    if done < 0.02:
        return 0.05 + 0.95 * done / 0.02
    return 1.0 if done < 0.4 else max(0.02, 1 - 0.98 * (done - 0.4) / 0.6)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--data", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--minutes", type=float, default=4.0)
    p.add_argument("--rows", type=int, default=32)
    p.add_argument("--tiny", action="store_true", help="a small model and short rows, to try the script out")
    p.add_argument("--no-compile", action="store_true")
    args = p.parse_args()
    born = time.time()
    os.makedirs(args.out, exist_ok=True)
    for name in FILES:
        assert os.path.isfile(os.path.join(args.data, name)), f"missing {name}"
    with open(os.path.join(args.data, "meta.json"), encoding="utf-8") as file:
        meta = json.load(file)
    log_file = open(os.path.join(args.out, "log.txt"), "w", encoding="utf-8")

    def log(text):
        line = f"[{time.time() - born:7.1f}s] {text}"
        print(line, flush=True)
        log_file.write(line + "\n")
        log_file.flush()

    device = "cuda" if torch.cuda.is_available() else "cpu"
    c = Config()
    rows = args.rows
    if args.tiny:
        c.layers, c.context, rows = 2, 128, 4
    assert meta["vocabulary"] == c.vocabulary
    torch.manual_seed(1)
    torch.set_float32_matmul_precision("high")
    data = Data(args.data, device)
    model = Model(c).to(device)
    log(f"{device} {torch.cuda.get_device_name() if device == 'cuda' else ''} torch {torch.__version__} "
        f"parameters {sum(p.numel() for p in model.parameters())} tokens {meta['tokens']}")

    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and n != "token_embd"]
    others = [p for n, p in model.named_parameters() if p.ndim != 2]
    muon = Muon(matrices, lr=0.02, decay=0.1)
    adam = torch.optim.AdamW([{"params": [model.token_embd], "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
                             lr=3e-3, betas=(0.9, 0.95))

    def loss_of(ids):
        with autocast(device):
            return model.loss(ids)

    step_loss = loss_of
    if device == "cuda" and not args.no_compile:
        try:
            compiled = torch.compile(loss_of)
            for _ in range(2):
                compiled(data.batch(rows, c.context)).backward()
            model.zero_grad(set_to_none=True)
            torch.cuda.synchronize()
            step_loss = compiled
            log("compiled")
        except Exception as error:  # Whatever the compiler trips over, the plain model trains too.
            model.zero_grad(set_to_none=True)
            log(f"not compiled: {type(error).__name__}: {str(error)[:300]}")

    began = time.time()
    limit = args.minutes * 60
    step, best, best_at, next_eval, next_save = 0, math.inf, 0, 0.0, 60.0
    losses, history = [], []
    while True:
        elapsed = time.time() - began
        if elapsed >= limit:
            break
        if elapsed >= next_eval and step:
            value = held_out_loss(model, data, c.context, device)
            recent = torch.stack(losses).mean().item()
            losses.clear()
            log(f"step {step} {100 * elapsed / limit:.0f}% rate {rate(elapsed / limit):.2f} train {recent:.4f} held-out {value:.4f} "
                f"ppl {math.exp(value):.2f} tokens {step * rows * c.context / 1e6:.1f}M")
            assert math.isfinite(recent), "the loss is no number"
            history.append([step, round(elapsed, 1), recent, value])
            if value < best:
                best, best_at = value, step
                # Kept on disk only past the plateau; before that a later state is always better.
                if elapsed > limit * 0.4:
                    save(model, os.path.join(args.out, "best.npz"))
            next_eval = elapsed + max(limit / 24, 2.0)
        if elapsed >= next_save:
            save(model, os.path.join(args.out, "model.npz"))
            next_save += 60.0
        now = rate(elapsed / limit)
        for group in adam.param_groups:
            group["lr"] = 3e-3 * now
        loss = step_loss(data.batch(rows, c.context))
        loss.backward()
        torch.nn.utils.clip_grad_norm_([model.token_embd, *others], 1.0)
        muon.step(now)
        adam.step()
        model.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        step += 1
        if step % 10 == 0 and device == "cuda":
            # The clock above must not run ahead of the device.
            torch.cuda.synchronize()
        if step in (1, 10, 100):
            log(f"step {step} loss {loss.item():.4f}")

    # What ships is float16: judge exactly that, in float32 arithmetic.
    save(model, os.path.join(args.out, "model.npz"))
    with torch.no_grad():
        for q in model.parameters():
            if q.ndim == 2:
                q.copy_(q.half().float())
    torch.set_float32_matmul_precision("highest")
    final = held_out_loss(model, data, c.context, device, exact=True)
    log(f"done: {step} steps, {step * rows * c.context / 1e6:.1f}M tokens, held-out {final:.4f} ppl {math.exp(final):.3f}; best {best:.4f} at {best_at}")
    if best >= final - 0.005 and os.path.exists(os.path.join(args.out, "best.npz")):
        os.remove(os.path.join(args.out, "best.npz"))
    result = {"steps": step, "tokens": step * rows * c.context, "held_out_loss": final, "held_out_perplexity": math.exp(final),
              "seconds": time.time() - began, "history": history, "config": {k: getattr(c, k) for k in dir(c) if not k.startswith("_")}}
    with open(os.path.join(args.out, "result.json"), "w", encoding="utf-8") as file:
        json.dump(result, file, indent=1)
    samples(model, args, meta, device, log)


def samples(model, args, meta, device, log):
    """A few texts to read, greedy and sampled."""
    try:
        from jinja2 import Environment
        from tokenizers import Tokenizer
    except ImportError as error:
        log(f"no samples: {error}")
        return
    tokenizer = Tokenizer.from_file(os.path.join(args.data, "tokenizer.json"))
    template = Environment().from_string(meta["chat_template"])
    stops = [meta["specials"].index(s) for s in ("<|endoftext|>", "<|end|>")]
    user = lambda text: {"role": "user", "content": text}
    said = lambda text: {"role": "assistant", "content": text}
    chats = [
        [user("hello")], [user("What is ownership?")], [user("what is a trait")], [user("What does `Vec::push` do?")], [user("Who are you?")],
        [user("How do I read a file?")], [user("Explain lifetimes.")], [user("What is the capital of France?")],
        [{"role": "system", "content": "You are a helpful assistant."}, user("hello")],
        [user("Hi"), said("Hello! What would you like to know about Rust?"), user("What is borrowing?")],
        [user("What is a closure?"), said("A closure is an anonymous function that can capture values from its environment."), user("thanks!")],
    ]
    plain = ["Rust is", "The `Vec` type", "## What Is Ownership?\n\n", "fn main() {\n", "A trait defines", "In this chapter"]
    prompts = [template.render(messages=m, bos_token="<|begin|>", add_generation_prompt=True) for m in chats]
    prompts += ["<|begin|>" + p for p in plain]
    count = 8 if args.tiny else 110
    with open(os.path.join(args.out, "samples.txt"), "w", encoding="utf-8") as file:
        for temperature in (0.0, 0.7):
            for prompt in prompts:
                ids = tokenizer.encode(prompt, add_special_tokens=False).ids
                out = generate(model, ids, count, stops, device, temperature, seed=7)
                file.write(f"=== temperature {temperature}\n{prompt}>>>{tokenizer.decode(out[len(ids):], skip_special_tokens=False)}\n\n")
                file.flush()
    log("samples written")


if __name__ == "__main__":
    sys.exit(main())
