"""Makes everything `train.py` needs from the pages that `corpus.py` wrote.

    python prepare.py PAGES.jsonl OUT_DIR HELD_OUT.txt

Writes tokenizer.json, text.npy, source.npy, chat.npy, held_out.npy (token ids, uint16), their `.starts.npy` (where documents
begin) and meta.json. Everything is seeded: the same documentation gives the same files.
"""

import hashlib
import json
import os
import random
import re
import subprocess
import sys

import numpy as np
from jinja2 import Environment
from lxml import html
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from corpus import plain, raw_text
import dialogues as d

VOCABULARY = 4096
SPECIALS = ["<|begin|>", "<|endoftext|>", "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|reserved|>"]
BEGIN, END_OF_TEXT = 0, 1
HELD_OUT_CHARACTERS = 90_000
# The pre-tokenizer that GGUF files name "llama-bpe".
LLAMA_BPE = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\\n' + message['content'] | trim + '<|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
)
GENERIC = re.compile(
    r"^(examples?|panics?|safety|errors?|summary|notes?|introduction|overview|description|options|see also|conclusion|usage|background|"
    r"motivation|.*tracking issue.*|.*feature is.*|struct .*|enum .*|trait .*|module .*|macro .*|function .*|type alias .*|primitive type .*|"
    r"constant .*|keyword .*|fields|variants|implementations|methods|manual|name|synopsis|environment|exit status|error code .*|return values?|"
    r"required .*|provided .*|dyn compatibility|requirements|building.*|testing.*|cross-compilation.*|target maintainers.*|\W.*)$",
    re.I,
)


def held_out(pages):
    """Pages for perplexity: chosen by the hash of their path, of middling length, from every book."""
    chosen, total = set(), 0
    share = {"std": 0.3}
    used = {}
    for page in sorted(pages, key=lambda p: hashlib.sha256(p["path"].encode()).hexdigest()):
        size = len(page["text"])
        kind = "std" if page["source"] == "std" else "book"
        limit = HELD_OUT_CHARACTERS * share.get(kind, 0.7)
        if 1500 <= size <= 12_000 and page["source"] not in ("error_codes",) and used.get(kind, 0) + size <= limit:
            chosen.add(page["path"])
            used[kind] = used.get(kind, 0) + size
            total += size
    return chosen


def library_source():
    """The source of core, alloc and std as text, documentation comments taken out (their pages hold them)."""
    sysroot = subprocess.check_output(["rustc", "--print", "sysroot"], text=True).strip()
    root = os.path.join(sysroot, "share/doc/rust/html/src")
    skip = re.compile(r"stdarch|core_arch|/sys/|/os/|tests?/|tests?\.rs|unicode_data|dec2flt/table|core_simd|flt2dec|float/|libm|/f(16|32|64|128)")
    documents = []
    for folder, _, files in sorted(os.walk(root)):
        for file in sorted(files):
            path = os.path.join(folder, file)
            if not path.endswith(".rs.html") or skip.search(path[len(root):]) or os.path.getsize(path) > 2_000_000:
                continue
            with open(path, encoding="utf-8") as handle:
                text = handle.read()
            text = re.sub(r"<a href=#\d+ id=\d+ data-nosnippet>\d+</a>", "", text)
            tree = html.fromstring(text.replace("<wbr>", ""))
            code = tree.xpath('//pre[contains(@class,"rust")]/code')
            if not code:
                continue
            lines = [l.rstrip() for l in plain(raw_text(code[0])).split("\n")]
            lines = [l for l in lines if not re.match(r"\s*//[/!]", l) and not re.match(r"\s*#!?\[(stable|unstable|rustc_|doc|must_use|cfg_attr)", l)]
            text = re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
            if len(text) > 200:
                documents.append(text)
    return documents


def tidy(answer):
    """An answer that ends in a whole sentence, or nothing."""
    answer = re.sub(r"\s+", " ", answer).strip()
    sentences = re.findall(r".+?[.!?](?=\s|$)|.+$", answer)
    sentences = [s.strip() for s in sentences]
    while sentences and not re.search(r"[.!?]$", sentences[-1]):
        sentences.pop()
    text = ""
    for sentence in sentences:
        if len(text) + len(sentence) > 330 and text:
            break
        text = (text + " " + sentence).strip()
    return text if 25 <= len(text) <= 420 else ""


def vary(random_, question):
    """The same question as people type it."""
    roll = random_.random()
    if roll < 0.15:
        question = question.lower() if "`" not in question and "::" not in question else question
    elif roll < 0.25:
        question = question.rstrip("?.!")
    elif roll < 0.30:
        question = question.replace("`", "")
    return question


def exchanges(pages):
    """Lists of (question maker, answers) by kind, from the corpus."""
    items, sections, errors, known = [], [], [], set()
    for page in pages:
        for short, kind, prose, module in page["items"]:
            answer = tidy(prose)
            # The integer types say the same thing a dozen times.
            plainer = re.sub(r"[iuf]?(8|16|32|64|128|size)\b", "", answer)
            if not answer or plainer in known:
                continue
            known.add(plainer)
            named = {"struct": "struct", "enum": "enum", "trait": "trait", "macro": "macro", "fn": "function", "module": "module"}.get(kind)
            short = short + "!" if kind == "macro" else short
            answers = [answer]
            if named and kind != "module":
                answers.append(f"`{short}` is a {named} in `{module}`. {answer}".replace("a enum", "an enum"))
            items.append(([q.format(short) for q in d.ASK_ITEM], answers))
        if page["source"] == "error_codes":
            found = re.search(r"E\d{4}", page["title"])
            body = [b for b in page["text"].split("\n\n")[1:] if not b.startswith(("```", "#", "-"))]
            body = [b for b in body if "no longer emitted" not in b]
            answer = tidy(body[0]) if body else ""
            if found and answer:
                errors.append(([q.format(found.group()) for q in d.ASK_ERROR], [answer]))
            continue
        for heading, body in page["sections"]:
            heading = re.sub(r"[*`]", "", heading) if heading.count("`") != 2 else heading
            answer = tidy(body)
            if not answer or GENERIC.match(heading) or len(heading.split()) > 8 or (heading, answer) in known:
                continue
            known.add((heading, answer))
            if heading.endswith("?"):
                questions = [heading]
            elif re.match(r"^(how|why|when|what|where) ", heading, re.I):
                questions = [heading, heading + "?", "Explain: " + heading]
            else:
                questions = [q.format(heading) for q in ("Explain {}.", "Tell me about {}.", "What about {}?", "{}", "What do the Rust books say about {}?")]
            sections.append((questions, [answer]))
    concepts = []
    for names, answers in d.CONCEPTS:
        questions = []
        for name in names:
            plural = name[-1] == "s" and not name.startswith(("a ", "an ", "the ", "`")) and name.split()[0] not in ("Cargo", "borrowing") \
                and name not in ("generics", "static", "Send and Sync") and name[0].islower()
            questions += [q.format(name) for q in (d.ASK_PLURAL if plural or name == "generics" else d.ASK)]
            bare = re.sub(r"^(a|an|the) ", "", name)
            questions += [bare, "Define " + bare, "What is " + bare + "?"]
        concepts.append((questions, answers))
    return {"small": d.SMALL_TALK, "concept": concepts, "how": d.HOW_TO, "item": items, "section": sections, "error": errors}


def conversations(pools, count, seed):
    """`count` message lists of one to four exchanges."""
    random_ = random.Random(seed)
    weights = {"small": 17, "concept": 33, "how": 14, "item": 21, "section": 10, "error": 5}
    kinds, chances = list(weights), list(weights.values())
    queues = {kind: [] for kind in kinds}

    def draw(kind):
        # Every entry comes once before any comes again.
        if not queues[kind]:
            queues[kind] = list(range(len(pools[kind])))
            random_.shuffle(queues[kind])
        questions, answers = pools[kind][queues[kind].pop()]
        return vary(random_, random_.choice(questions)), random_.choice(answers)

    for _ in range(count):
        messages = []
        if random_.random() < 0.15:
            messages.append({"role": "system", "content": random_.choice(d.SYSTEM)})
        turns = random_.choices([1, 2, 3, 4], [45, 27, 18, 10])[0]
        for turn in range(turns):
            kind = random_.choices(kinds, chances)[0]
            if turn == 0 and random_.random() < 0.12:
                kind = "small"
            question, answer = draw(kind)
            if turn and kind != "small":
                question = random_.choice(d.FOLLOW) + question
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        yield messages


def train_tokenizer(samples):
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA_BPE), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIALS, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False,
        max_token_length=24,
    )
    tokenizer.train_from_iterator(samples, trainer)
    assert tokenizer.get_vocab_size() == VOCABULARY, tokenizer.get_vocab_size()
    assert [tokenizer.token_to_id(s) for s in SPECIALS] == list(range(len(SPECIALS)))
    return tokenizer


def save(folder, name, documents):
    starts = np.cumsum([0] + [len(x) for x in documents[:-1]]).astype(np.uint32)
    ids = np.concatenate([np.asarray(x, dtype=np.uint16) for x in documents])
    assert ids.max() < VOCABULARY
    np.save(os.path.join(folder, f"{name}.npy"), ids)
    np.save(os.path.join(folder, f"{name}.starts.npy"), starts)
    return len(ids)


def main():
    pages_path, folder, held_out_path = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    with open(pages_path, encoding="utf-8") as file:
        pages = [json.loads(line) for line in file]
    apart = held_out(pages)
    train = [p for p in pages if p["path"] not in apart]
    known = {b for p in train for b in p["text"].split("\n\n") if len(b) >= 60}
    blocks = []
    for page in pages:
        if page["path"] in apart:
            kept = [b for b in page["text"].split("\n\n") if b not in known]
            if sum(map(len, kept)) > 800:
                blocks.append("\n\n".join(kept))
    text = "\n\n".join(blocks) + "\n"
    with open(held_out_path, "w", encoding="utf-8") as file:
        file.write(text)
    print(f"held out: {len(apart)} pages, {len(text.encode())} bytes", flush=True)

    sources = library_source()
    pools = exchanges(train)
    print({k: len(v) for k, v in pools.items()}, f"source files {len(sources)}, {sum(map(len, sources))} characters", flush=True)
    chats = list(conversations(pools, 45_000, 17))
    template = Environment().from_string(TEMPLATE)
    rendered = [template.render(messages=m, bos_token="", add_generation_prompt=False) for m in chats]

    contents = [m["content"] for c in chats[:12_000] for m in c]
    tokenizer = train_tokenizer([p["text"] for p in train] + contents + sources[::4])
    tokenizer.save(os.path.join(folder, "tokenizer.json"))

    def encode(texts):
        return [e.ids for e in tokenizer.encode_batch(texts, add_special_tokens=False)]

    counts = {}
    ids = encode([p["text"] for p in train])
    random.Random(3).shuffle(ids)
    counts["text"] = save(folder, "text", [[BEGIN] + x + [END_OF_TEXT] for x in ids])
    ids = encode(sources)
    random.Random(4).shuffle(ids)
    counts["source"] = save(folder, "source", [[BEGIN] + x + [END_OF_TEXT] for x in ids])
    ids = encode(rendered)
    # One dialogue in ten comes without the begin token, so that a front end that leaves it out does no harm.
    random_ = random.Random(5)
    counts["chat"] = save(folder, "chat", [([] if random_.random() < 0.1 else [BEGIN]) + x + [END_OF_TEXT] for x in ids])
    counts["held_out"] = save(folder, "held_out", encode([text]))
    meta = {"vocabulary": VOCABULARY, "specials": SPECIALS, "chat_template": TEMPLATE, "pre": "llama-bpe", "tokens": counts,
            "held_out_bytes": len(text.encode()), "held_out_characters": len(text)}
    with open(os.path.join(folder, "meta.json"), "w", encoding="utf-8") as file:
        json.dump(meta, file, indent=1)
    print(counts, "characters a token on held-out text:", round(len(text) / counts["held_out"], 3))
    for shown in rendered[:6]:
        print("-----\n" + shown)


if __name__ == "__main__":
    main()
