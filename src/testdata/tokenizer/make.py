"""Makes the fixtures of src/tokenizer/tests.rs and src/chat/tests.rs with Hugging Face's tokenizers, sentencepiece and
jinja2. No file is downloaded: each tokenizer is trained here, on the text below, with the published pre-tokenizer of its
kind.

    python -m venv venv && venv/bin/pip install tokenizers==0.23.3 transformers==5.23.0 sentencepiece==0.2.3 jinja2==3.1.6 protobuf
    venv/bin/python src/testdata/tokenizer/make.py

Writes, beside itself: `llama.json`, `llama-bpe.json`, `qwen2.json`, `smollm.json`, `gpt-2.json` (the metadata that a
GGUF file would carry, and the ids of every text with and without special tokens), `texts.json`, and `chat.json`
(templates, messages, and what jinja2 renders).
"""

import io
import json
import pathlib
import sys

import sentencepiece as spm
from jinja2.exceptions import TemplateError
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import generate_merges
from transformers.utils.chat_template_utils import _cached_compile_jinja_template

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
from texts import CORPUS, TEXTS  # noqa: E402

SPECIAL_ASCII = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|eot_id|>"]
USER_DEFINED = ["<tool>", "\u2192\u2192"]


def write(name, value):
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    (HERE / name).write_text(text.replace('],"', '],\n"') + "\n", encoding="utf-8")


def encode_all(tokenizer):
    """Ids of every text, [special tokens as plain text, special tokens parsed], and what the first decode to where that
    is not the text."""
    rows, decoded = [], {}
    for index, text in enumerate(TEXTS):
        tokenizer.encode_special_tokens = True
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        tokenizer.encode_special_tokens = False
        parsed = tokenizer.encode(text, add_special_tokens=False).ids
        rows.append([plain, parsed])
        back = tokenizer.decode(plain, skip_special_tokens=False)
        if back != text:
            decoded[index] = back
    return rows, decoded


def sentence_piece():
    """A SentencePiece BPE model under Llama 2's options, converted as transformers' LlamaConverter does."""
    model = io.BytesIO()
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.splitlines()),
        model_writer=model,
        model_type="bpe",
        vocab_size=1000,
        character_coverage=0.98,
        byte_fallback=True,
        split_digits=True,
        allow_whitespace_only_pieces=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        user_defined_symbols=USER_DEFINED,
        control_symbols=["<|im_start|>", "<|im_end|>"],
        minloglevel=2,
    )
    processor = spm.SentencePieceProcessor(model_proto=model.getvalue())
    size = processor.get_piece_size()
    tokens = [processor.id_to_piece(i) for i in range(size)]
    scores = [processor.get_score(i) for i in range(size)]

    def kind(i):
        if processor.is_unknown(i):
            return 2
        if processor.is_control(i):
            return 3
        if processor.is_byte(i):
            return 6
        if processor.is_unused(i):
            return 5
        return 4 if tokens[i] in USER_DEFINED else 1

    kinds = [kind(i) for i in range(size)]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = generate_merges(vocab, list(zip(tokens, scores)))
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(
        [AddedToken(tokens[i], normalized=False, special=True) for i in range(size) if kinds[i] in (2, 3)]
    )
    tokenizer.add_tokens([AddedToken(tokens[i], normalized=False) for i in range(size) if kinds[i] == 4])

    rows, decoded = encode_all(tokenizer)
    # A second witness: sentencepiece itself, where no added token cuts the text (it puts its prefix at the very front
    # only) and the text is not in its way of handling control characters.
    compared = 0
    for text, (plain, _) in zip(TEXTS, rows):
        if not any(symbol in text for symbol in USER_DEFINED) and "\0" not in text:
            expected = processor.encode(text)
            assert plain == expected, (text, tokenizer.encode(text).tokens, processor.encode(text, out_type=str))
            compared += 1
    print(f"llama: {compared} of {len(TEXTS)} texts compared with sentencepiece as well")
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": True,
    }
    write("llama.json", {"metadata": metadata, "ids": rows, "decoded": decoded})


LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def split(pattern):
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def byte_level(pre):
    """A byte-level BPE with the pre-tokenizer of the model family's published tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = {
        "llama-bpe": lambda: split(LLAMA_3),
        "qwen2": lambda: split(QWEN_2),
        "smollm": lambda: pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
            ]
        ),
        "gpt-2": lambda: pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True),
    }[pre]()
    if pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=800, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS.splitlines(keepends=True), trainer)
    if pre == "llama-bpe":
        model = json.loads(tokenizer.to_str())["model"]
        # Whole words that no merge reaches, as in Llama 3's vocabulary: they exist for ignore_merges alone.
        vocab = model["vocab"] | {" Zyxwvq".replace(" ", "\u0120"): len(model["vocab"]), "qvwxyz": len(model["vocab"]) + 1}
        merges = [tuple(pair) for pair in model["merges"]]
        tokenizer.model = models.BPE(vocab, merges, ignore_merges=True)
    model = json.loads(tokenizer.to_str())["model"]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_ASCII])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in USER_DEFINED])
    rows, decoded = encode_all(tokenizer)
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    tokens = [tokenizer.id_to_token(i) for i in range(size)]
    kinds = [3 if token in SPECIAL_ASCII else 4 if token in USER_DEFINED else 1 for token in tokens]
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.bos_token_id": tokens.index("<|endoftext|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
    }
    write(f"{pre}.json", {"metadata": metadata, "ids": rows, "decoded": decoded})
    if pre == "gpt-2":
        # The same vocabulary as a tokenizer.json.
        tokenizer.encode_special_tokens = False
        (HERE / "gpt-2.tokenizer.json").write_text(tokenizer.to_str() + "\n", encoding="utf-8")


def chat():
    from chat_templates import CONVERSATIONS, TEMPLATES

    cases = []
    for name, (source, bos, eos) in TEMPLATES.items():
        template = _cached_compile_jinja_template(source)
        for conversation, messages in CONVERSATIONS.items():
            for prompt in (False, True):
                try:
                    text = template.render(
                        messages=messages,
                        add_generation_prompt=prompt,
                        bos_token=bos,
                        eos_token=eos,
                        tools=None,
                        documents=None,
                        # 2024-07-26 12:34:56 UTC
                        strftime_now=lambda form: __import__("datetime").datetime(2024, 7, 26, 12, 34, 56).strftime(form),
                    )
                    outcome = {"text": text}
                except TemplateError as error:
                    outcome = {"error": str(error)}
                cases.append({"template": name, "conversation": conversation, "prompt": prompt} | outcome)
    templates = {name: {"source": source, "bos": bos, "eos": eos} for name, (source, bos, eos) in TEMPLATES.items()}
    write("chat.json", {"templates": templates, "conversations": CONVERSATIONS, "cases": cases})
    print(f"chat: {len(cases)} cases, {sum('error' in case for case in cases)} of them errors")


if __name__ == "__main__":
    write("texts.json", TEXTS)
    sentence_piece()
    for name in ("llama-bpe", "qwen2", "smollm", "gpt-2"):
        byte_level(name)
    chat()
