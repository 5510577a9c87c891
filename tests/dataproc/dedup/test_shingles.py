"""Shingling and hashing against their definitions in plain Python."""

import base64
import random
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataproc.dedup.cleaning import clean, clean_all
from dataproc.dedup.shingles import (
    HASH,
    ShingleHashes,
    Shingling,
    hash_rows,
    shingle_hashes,
    shingle_sets,
    text_hashes,
    unique_sorted,
)

UNITS: list[Literal["char", "word"]] = ["char", "word"]
characters = st.one_of(st.sampled_from("ab é ا 語😀\0"), st.characters(exclude_categories=["Cs"]))
rows = st.lists(st.text(characters, max_size=150), max_size=8)


def units_of(cleaned: str, shingling: Shingling) -> list[str]:
    return list(cleaned) if shingling.unit == "char" else cleaned.split()


def shingles(cleaned: str, shingling: Shingling) -> list[str]:
    units = units_of(cleaned, shingling)
    glue = "" if shingling.unit == "char" else " "
    return [glue.join(units[i : i + shingling.n]) for i in range(len(units) - shingling.n + 1)]


def per_document(hashed: ShingleHashes) -> list[list[int]]:
    bounds = hashed.offsets.tolist()
    return [hashed.hashes[a:b].tolist() for a, b in pairwise(bounds)]


# ---- the hash as kernels/hashing.py states it, in Python's integers

CUT = 2**64 - 1
SECRET, LENGTH, SHINGLE = 0xFF51AFD7ED558CCD, 0x9E3779B97F4A7C15, 0x6A09E667F3BCC909
BASE, MIX = 0xD1342543DE82EF93, 0xA54FF53A5F1D36F1


def fold(a: int, b: int) -> int:
    return (a * b & CUT) ^ (a * b >> 64)


def span(text: bytes, seed: int = SHINGLE) -> int:
    h = fold(seed ^ SECRET, LENGTH) ^ len(text) * LENGTH & CUT
    while len(text) > 16:
        h = fold(int.from_bytes(text[:8], "little") ^ SECRET, int.from_bytes(text[8:16], "little") ^ h)
        text = text[16:]
    first, last = text[:8], text[-8:]
    product = (int.from_bytes(first.rjust(8, b"\0"), "little") ^ SECRET) * (int.from_bytes(last, "little") ^ h)
    return fold(product & CUT ^ LENGTH, product >> 64)


def by_the_formula(shingle: str, shingling: Shingling) -> int:
    if shingling.unit == "char":
        return span(shingle.encode())
    h = 0
    for word in shingle.split(" "):
        h = (h * BASE + span(word.encode())) & CUT
    h = (h ^ h >> 32) * MIX & CUT
    return h ^ h >> 32


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=70), st.integers(0, CUT))
def test_the_hash_of_a_span_is_its_formula(text: bytes, seed: int) -> None:
    row = np.frombuffer(text, np.uint8)[None]
    assert hash_rows(row, seed=seed).tolist() == [span(text, seed)]


@settings(deadline=None, max_examples=120)
@given(rows, st.sampled_from(UNITS), st.integers(1, 20) | st.just(64))
@example(["abcdefghijklmnop", "ébcdefghijklmnop", "abcdefghijklm", "abcdefghijkl"], "char", 13)
@example(["a b c d e f", "a b c d e", "a b c d", "", "ä b c d e f"], "word", 5)
@example(["x" * 1500 + "é" + "y" * 700, "é" * 1100 + "x" * 80 + "語" * 3, "a " * 1200], "char", 13)
@example(["word " * 600 + "a\0 b " * 40, "w" * 17 + " " + "é" * 30 + " x"], "word", 5)
def test_every_shingle_is_hashed_by_the_formula(rows: list[str], unit: Literal["char", "word"], n: int) -> None:
    shingling = Shingling(unit, n)
    cleaned = clean_all(pa.array(rows, pa.string()))
    expected = [[by_the_formula(s, shingling) for s in shingles(clean(row), shingling)] for row in rows]
    assert per_document(shingle_hashes(cleaned, shingling)) == expected
    sets = shingle_sets(pa.chunked_array([rows], pa.string()), shingling)
    assert per_document(ShingleHashes(sets.hashes, sets.offsets)) == [sorted(set(found)) for found in expected]


def thue_morse(length: int, zero: str, one: str) -> list[str]:
    """The sequence against which polynomial hashes are weakest."""
    return [one if bin(i).count("1") % 2 else zero for i in range(length)]


REPETITIVE = {
    "one letter": "a" * 3000 + "b" * 3000 + "aab" * 1000,
    "periods": " ".join("".join(random.Random(p).choices("abc", k=p)) * (600 // p) for p in range(1, 80)),
    "dna": "".join(random.Random(1).choices("acgt", k=60_000)),
    "base64": base64.b64encode(random.Random(2).randbytes(50_000)).decode().lower(),
    "numbers": "".join(f"{i:07}" for i in range(10_000)),
    "thue-morse": "".join(thue_morse(4096, "a", "b") + thue_morse(4096, "b", "a")),
    "arabic letters": "".join(random.Random(3).choices("ابت", k=50_000)),
}


@pytest.mark.parametrize("kind", REPETITIVE)
@pytest.mark.parametrize("n", [1, 5, 13, 64])
def test_shingles_of_repetitive_texts_do_not_collide(kind: str, n: int) -> None:
    cleaned = clean(REPETITIVE[kind])
    distinct = {cleaned[i : i + n] for i in range(len(cleaned) - n + 1)}
    hashes = shingle_hashes(pa.array([cleaned], pa.large_string()), Shingling("char", n)).hashes
    assert len(np.unique(hashes)) == len(distinct)
    assert_random_halves(np.unique(hashes))


@pytest.mark.parametrize("n", [2, 5, 16, 64])
def test_shingles_of_repeated_words_do_not_collide(n: int) -> None:
    words = [*thue_morse(4096, "a", "b"), *thue_morse(4096, "b", "a"), *"xy" * 2000]
    words += [str(random.Random(i).randrange(12)) for i in range(40_000)]
    distinct = {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
    hashes = shingle_hashes(pa.array([" ".join(words)], pa.large_string()), Shingling("word", n)).hashes
    assert len(np.unique(hashes)) == len(distinct)
    assert_random_halves(np.unique(hashes))


def assert_random_halves(hashes: np.ndarray) -> None:
    """Both halves collide no more than those of random numbers would, 6 σ and 3 pairs allowed."""
    expected = len(hashes) ** 2 / 2**33
    for half in (hashes.astype(np.uint32), hashes >> np.uint64(32)):
        assert len(half) - len(np.unique(half)) <= expected + 6 * expected**0.5 + 3


def test_a_text_shorter_than_a_shingle_has_none() -> None:
    hashed = shingle_hashes(pa.array(["twelve chars", "thirteen char"], pa.large_string()), Shingling("char", 13))
    assert hashed.offsets.tolist() == [0, 0, 1]


def test_the_hash_is_the_one_its_name_promises() -> None:
    """Artifacts carry the name `HASH`: whoever changes these values must change the name too."""
    assert HASH == "winnow-fold64-1"
    text = pa.array(["one two three"], pa.large_string())
    assert shingle_hashes(text, Shingling("char", 13)).hashes.tolist() == [0x9631459195B8079E]
    assert shingle_hashes(text, Shingling("word", 3)).hashes.tolist() == [0x6CC565FBD5EAA0FA]
    assert text_hashes(text).tolist() == [[0x18DCF930F77F5C2C, 0x699DE361B941D14F]]


@pytest.mark.parametrize("size", [4, 13, 24])
def test_one_flipped_bit_flips_half_of_the_hash(size: int) -> None:
    bases = np.random.default_rng(0).integers(0, 256, (4000, size), dtype=np.uint8)
    before = hash_rows(bases, seed=7)
    for bit in range(8 * size):
        flipped = bases.copy()
        flipped[:, bit // 8] ^= np.uint8(1 << bit % 8)
        changed = (hash_rows(flipped, seed=7) ^ before)[:, None].view(np.uint8)
        share = np.unpackbits(changed, axis=1).mean(axis=0)  # of each output bit: 0.5 ± 0.008
        assert share.min() > 0.46
        assert share.max() < 0.54


def test_low_halves_collide_no_more_than_chance() -> None:
    numbers = np.arange(300_000, dtype=np.uint64).view(np.uint8).reshape(-1, 8)
    low = hash_rows(numbers, seed=0).astype(np.uint32)
    expected = 300_000**2 / 2**33  # 10.5
    assert len(low) - len(np.unique(low)) < expected + 6 * expected**0.5


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 5), max_size=20), max_size=6))
def test_sets_are_each_documents_own(documents: list[list[int]]) -> None:
    offsets = np.cumsum([0, *map(len, documents)])
    hashes = np.array([value for document in documents for value in document], np.uint64)
    sets = unique_sorted(ShingleHashes(hashes, offsets))
    found = [sets.hashes[a:b].tolist() for a, b in pairwise(sets.offsets)]
    assert found == [sorted(set(document)) for document in documents]


@settings(deadline=None)
@given(rows)
def test_text_hashes_tell_texts_apart(rows: list[str]) -> None:
    hashed = text_hashes(pa.array(rows, pa.large_string()))
    assert hashed.shape == (len(rows), 2)
    for lane in hashed.T:
        assert len(set(lane.tolist())) == len(set(rows))


@pytest.mark.parametrize(("unit", "n"), [("char", 0), ("line", 3)])
def test_a_shingling_that_cannot_be_is_refused(unit: str, n: int) -> None:
    with pytest.raises(ValueError, match=f"{unit if n else n}"):
        Shingling(unit, n)  # type: ignore[arg-type]
