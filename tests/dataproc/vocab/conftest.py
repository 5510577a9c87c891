"""Bases of three makes, trained on Latin text, and text in other scripts."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ENGLISH = (
    "the quick brown fox jumps over the lazy dog and then it's off to the woods where 12 others wait (naïve, as ever)\n"
    "in the beginning there was a model of language and it had tokens of one kind only, which is not a way to be\n"
)
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LETTERS = {
    "Arabic": ("ابتثجحخدرسشصعفقكلمنهوي", "َُِّ", "،؟٣"),
    "Devanagari": ("कखगघचजटडतदनपबमयरलवसह", "ािीुूेैो्", "।३"),
    "Han": ("的一是不了人我在有他这为之大来以个中上们", "", "。"),
}


def words_in(script: str, seed: int, count: int) -> list[str]:
    """Words of a script, some far more frequent than others, with marks and digits here and there."""
    letters, marks, others = LETTERS[script]
    rng = random.Random(f"{script}/{seed}")
    lexicon = [
        "".join(rng.choice(letters) + (rng.choice(marks) if marks and rng.random() < 0.3 else "") for _ in range(n))
        for n in (rng.randint(1, 6) for _ in range(60))
    ]
    return [rng.choice(lexicon[: rng.randint(1, 60)]) + (rng.choice(["", "", "", *others])) for _ in range(count)]


def byte_level(size: int = 300) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([ENGLISH] * 3, trainer)
    return tokenizer


def like_llama3() -> Tokenizer:
    """Whole words before merges, added tokens beside the model, and a hole in the ids before them."""
    content = json.loads(byte_level().to_str())
    content["pre_tokenizer"] = json.loads(
        json.dumps(
            {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": LLAMA3}, "behavior": "Isolated", "invert": False},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
                ],
            }
        )
    )
    model = content["model"]
    model["ignore_merges"] = True
    end = content["added_tokens"][0]
    del model["vocab"][end["content"]]
    model["vocab"] = {token: number - 1 for token, number in model["vocab"].items()}
    last = list(model["vocab"])[-1]
    model["vocab"][last] += 20
    end["id"] = len(model["vocab"])
    extra = {**end, "id": end["id"] + 1, "content": "<|eot_id|>"}
    content["added_tokens"] = [end, extra]
    return Tokenizer.from_str(json.dumps(content))


def like_llama2() -> Tokenizer:
    """Characters with byte fallback; every way to make a token is a merge; the text is one piece."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace()
    learned.train_from_iterator([ENGLISH] * 3, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    model = json.loads(learned.to_str())["model"]
    tokens = [t for t in model["vocab"] if t != "\n"]
    known = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *tokens]
    vocab = {token: number for number, token in enumerate(known)}
    splits = [(t[:i], t[i:]) for t in tokens for i in range(1, len(t)) if t[:i] in vocab and t[i:] in vocab]
    tokenizer = Tokenizer(models.BPE(vocab, splits, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


MAKES: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level,
    "like_llama3": like_llama3,
    "like_llama2": like_llama2,
}


@pytest.fixture(scope="session")
def scripts() -> list[str]:
    return list(LETTERS)


@pytest.fixture(scope="session", name="words_in")
def _words_in() -> Callable[[str, int, int], list[str]]:
    return words_in


@pytest.fixture(scope="session", params=list(MAKES))
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a base."""
    return save(MAKES[request.param](), tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def plain_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level base."""
    return save(byte_level(), tmp_path_factory.mktemp("plain"))


def save(tokenizer: Tokenizer, directory: Path) -> Path:
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


@pytest.fixture(scope="session")
def bilingual(tmp_path_factory: pytest.TempPathFactory, write_jsonl: Any) -> Path:
    """raw/: english, and one source in each other script, with some English in it."""
    raw = tmp_path_factory.mktemp("bilingual")
    lines = ENGLISH.splitlines()
    write_jsonl(raw / "english" / "x.jsonl", [{"text": f"{n}. {lines[n % 2]}"} for n in range(40)])
    for script in LETTERS:
        texts = [" ".join([*words_in(script, n, 40), lines[n % 2][:20], *words_in(script, -1, 40)]) for n in range(40)]
        for part in range(2):
            write_jsonl(raw / script.lower() / f"{part}.jsonl", [{"text": text} for text in texts[part::2]])
    return raw
