"""The benchmark's exact answer is exact: against brute force, and against a reference that was made without it."""

from __future__ import annotations

import io
import random
import string
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import zstandard
from tests.reference import DATA, TRUTH, needs_truth

from bench.dedup.oracle import Pairs, Score, Unit, components, gram_sets, near_pairs, score


def corpus(seed: int, documents: int = 250) -> list[str]:
    """Texts of few words, many of them edited copies of others, in every state of case and punctuation."""
    rng = random.Random(seed)
    vocabulary = ["".join(rng.choices("abcdefghij", k=rng.randint(1, 5))) for _ in range(300)] + ["É", "ß", "–"]
    texts: list[str] = ["", " . ", "one", "one two", "One, two!", "a b c d", "a b c d e"]
    while len(texts) < documents:
        words = rng.choice(texts).split() if rng.random() < 0.6 else rng.choices(vocabulary, k=rng.randint(3, 80))
        for _ in range(rng.randint(0, 3)):
            words.insert(rng.randint(0, len(words)), rng.choice(vocabulary))
        text = " ".join(word + rng.choice(["", "", ",", ".\n"]) for word in words)
        texts.append(text.upper() if rng.random() < 0.2 else text)
    return texts


def grams(text: str, unit: Unit, n: int) -> set[Any]:
    words = "".join(c for c in text.lower() if c not in string.punctuation).split()
    units: Any = words if unit == "word" else " ".join(words)
    n = min(n, len(units))
    return {tuple(units[i : i + n]) for i in range(len(units) - n + 1)} if n else set()


def brute_force(texts: list[str], unit: Unit, n: int, threshold: float) -> dict[tuple[int, int], float]:
    sets = [grams(text, unit, n) for text in texts]
    found = {}
    for a, b in combinations(range(len(texts)), 2):
        if sets[a] and sets[b]:
            value = len(sets[a] & sets[b]) / len(sets[a] | sets[b])
            if value >= threshold:
                found[a, b] = value
    return found


def expanded(pairs: Pairs) -> dict[tuple[int, int], float]:
    """All pairs: equal documents stand for each other."""
    same: dict[int, list[int]] = {}
    for a, b, value in zip(pairs.a.tolist(), pairs.b.tolist(), pairs.jaccard.tolist(), strict=True):
        if value == 1:
            same.setdefault(a, [a]).append(b)
    found = {(a, b): 1.0 for group in same.values() for a, b in combinations(sorted(group), 2)}
    for a, b, value in zip(pairs.a.tolist(), pairs.b.tolist(), pairs.jaccard.tolist(), strict=True):
        found |= {(min(x, y), max(x, y)): value for x in same.get(a, [a]) for y in same.get(b, [b]) if value < 1}
    return found


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
@pytest.mark.parametrize(("unit", "n"), [("word", 5), ("word", 1), ("char", 13)])
def test_all_pairs_are_found_with_their_jaccard(unit: Unit, n: int, threshold: float) -> None:
    texts = corpus(n)
    right = brute_force(texts, unit, n, threshold)
    assert len(right) > 30
    assert expanded(near_pairs(gram_sets(texts, unit, n), threshold)) == pytest.approx(right)


def test_components_are_what_the_pairs_connect() -> None:
    texts = corpus(1)
    labels = components(near_pairs(gram_sets(texts), 0.8), len(texts))
    root = list(range(len(texts)))
    for a, b in sorted(brute_force(texts, "word", 5, 0.8)):  # the slow way: relabel all of b's
        root = [root[a] if r == root[b] else r for r in root]
    assert len(set(labels.tolist())) == len(set(root)) == len(set(zip(labels.tolist(), root, strict=True)))


def test_precision_and_recall_do_not_care_which_member_stays() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    for removed in ([1, 2, 4], [0, 1, 3]):
        assert score(np.isin(np.arange(6), removed), labels) == Score(3, 3, 1.0, 1.0)
    assert score(np.isin(np.arange(6), [0, 1, 2, 5]), labels) == Score(4, 3, 0.5, 2 / 3)
    assert score(np.zeros(6, bool), labels) == Score(0, 3, 1.0, 0.0)


@needs_truth
@pytest.mark.parametrize("subset", ["stackexchange", "arabic_docs"])
def test_real_text_has_the_pairs_of_the_reference(subset: str) -> None:
    summary = next(s for s in orjson.loads((TRUTH / "SUMMARY.json").read_bytes()) if s["name"] == subset)
    rows = [row for name in summary["files"] for row in _lines(DATA / name)]
    number = {row["id"]: i for i, row in enumerate(rows)}
    pairs = _lines(TRUTH / f"{subset}.pairs.jsonl.zst")
    listed = [(number[p["a"]], number[p["b"]], p["j_char13"]) for p in pairs if p["j_char13"] >= 0.5]
    found = expanded(near_pairs(gram_sets((row["text"] for row in rows), "char", 13), 0.49))
    near = {pair: value for pair, value in found.items() if round(value, 4) >= 0.5}  # the reference is rounded
    assert near == pytest.approx({(min(a, b), max(a, b)): value for a, b, value in listed}, abs=1e-4)


def _lines(path: Path) -> list[Any]:
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        return [orjson.loads(line) for line in io.BufferedReader(stream)]
