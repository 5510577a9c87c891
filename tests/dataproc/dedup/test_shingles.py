"""Cleaning, shingling and hashing against their definitions in plain Python."""

import re
import string
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dataproc.dedup.cleaning import character_counts, clean, clean_all
from dataproc.dedup.shingles import (
    HASH,
    ShingleHashes,
    Shingling,
    hash_rows,
    shingle_hashes,
    text_hashes,
    unique_sorted,
)

# Where Python's idea of a letter, a space or a length differs from that of bytes.
TRICKY = "İΣς\0\x1c\x1d\x1e\x1f\x85\xa0\u2028\u3000\u200b\ufeff \t\n\v\f\r!-_~'’ßﬁ😀e\u0301"
texts = st.text(st.one_of(st.sampled_from(TRICKY + "aAbB09 "), st.characters(exclude_categories=["Cs"])))
rows = st.lists(texts, max_size=8)


def definition(text: str) -> str:
    without = "".join(c for c in text.lower() if c not in string.punctuation)
    return re.sub(r"\s+", " ", without.strip())


def shingles(cleaned: str, shingling: Shingling) -> list[str]:
    units = list(cleaned) if shingling.unit == "char" else cleaned.split(" ")
    glue = "" if shingling.unit == "char" else " "
    return [glue.join(units[i : i + shingling.n]) for i in range(len(units) - shingling.n + 1)]


def per_document(hashed: ShingleHashes) -> list[list[int]]:
    bounds = hashed.offsets.tolist()
    return [hashed.hashes[a:b].tolist() for a, b in pairwise(bounds)]


def test_cleaning_lowers_drops_punctuation_and_joins_spaces() -> None:
    assert clean("  -- Hello,\tWORLD!\n\n(it's) 3.14 ") == "hello world its 314"


def test_punctuation_between_spaces_leaves_one_space() -> None:
    assert clean_all(pa.array(["a - b", "- a -", "--", ""])).to_pylist() == ["a b", "a", "", ""]


@settings(deadline=None, max_examples=400)
@given(rows)
@example(["İ", "\0", "a\x1c\x1db", "\x85x\x85", "\xa0", "a\u2028b", "ΑΣ", "ΑΣ.", "plain ascii"])
def test_every_row_is_cleaned_as_the_definition_says(rows: list[str]) -> None:
    expected = [definition(row) for row in rows]
    assert [clean(row) for row in rows] == expected
    cleaned = clean_all(pa.array(rows, pa.string()))
    assert cleaned.type == pa.large_string()
    assert cleaned.to_pylist() == expected


def test_chunks_slices_and_string_widths_do_not_matter() -> None:
    rows = ["Zero!", "Ünö", "TWO  two", "3", ""]
    chunked = pa.chunked_array([["dropped", *rows[:2]], rows[2:]], type=pa.string()).slice(1)
    expected = [clean(row) for row in rows]
    assert clean_all(chunked).to_pylist() == expected
    assert clean_all(pa.array(["x", *rows, "y"], pa.large_string()).slice(1, 5)).to_pylist() == expected
    assert clean_all(pa.chunked_array([], type=pa.string())).to_pylist() == []


def test_a_missing_text_is_refused_with_its_row() -> None:
    with pytest.raises(ValueError, match="row 1"):
        clean_all(pa.array(["a", None]))


def test_numbers_are_not_texts() -> None:
    with pytest.raises(TypeError, match="int64"):
        clean_all(pa.array([1, 2]))


@settings(deadline=None)
@given(rows)
def test_characters_are_code_points(rows: list[str]) -> None:
    cleaned = clean_all(pa.array(rows, pa.string()))
    assert character_counts(cleaned).tolist() == [len(definition(row)) for row in rows]


@settings(deadline=None, max_examples=300)
@given(rows, st.sampled_from(["char", "word"]), st.integers(1, 14))
@example(["abcdefghijklmnop", "ébcdefghijklmnop", "abcdefghijklm", "abcdefghijkl"], "char", 13)
@example(["a b c d e f", "a b c d e", "a b c d", "", "ä b c d e f"], "word", 5)
def test_two_shingles_hash_alike_iff_they_are_the_same(rows: list[str], unit: str, n: int) -> None:
    shingling = Shingling(unit, n)  # type: ignore[arg-type]
    cleaned = clean_all(pa.array(rows, pa.string()))
    expected = [shingles(row, shingling) for row in cleaned.to_pylist()]
    hashed = per_document(shingle_hashes(cleaned, shingling))
    if unit == "word":  # an empty text has no word, while "".split(" ") has one
        expected = [found if row else [] for row, found in zip(cleaned.to_pylist(), expected, strict=True)]
    assert [len(h) for h in hashed] == [len(s) for s in expected]
    named = {pair for s, h in zip(expected, hashed, strict=True) for pair in zip(s, h, strict=True)}
    assert len(named) == len({name for name, _ in named}) == len({value for _, value in named})


def test_a_text_shorter_than_a_shingle_has_none() -> None:
    hashed = shingle_hashes(pa.array(["twelve chars", "thirteen char"], pa.large_string()), Shingling("char", 13))
    assert hashed.offsets.tolist() == [0, 0, 1]


def by_the_formula(text: bytes, seed: int) -> int:
    """The hash as its comment in shingles.py states it, in Python's integers."""
    m0, m1, m2, m3 = (0x6A09E667F3BCC909, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1)
    cut = 2**64 - 1

    def rotate(value: int, by: int) -> int:
        return (value << by | value >> (64 - by)) & cut

    words = [text[i : i + 8] for i in range(0, len(text), 8)]
    if len(text) > 8:
        words[-1] = text[-8:]
    h = seed ^ len(text) * m0 & cut
    for word in words:
        w = int.from_bytes(word, "little") ^ seed
        h = (rotate(h ^ rotate(w * m1 & cut, 31) * m2 & cut, 27) * m1 + m3) & cut
    h = (h ^ h >> 32) * m2 & cut
    h = (h ^ h >> 29) * m3 & cut
    return h ^ h >> 32


@settings(deadline=None, max_examples=300)
@given(st.binary(min_size=1, max_size=60), st.integers(0, 2**64 - 1))
def test_the_hash_is_its_formula(text: bytes, seed: int) -> None:
    row = np.frombuffer(text, np.uint8)[None]
    assert hash_rows(row, seed=seed).tolist() == [by_the_formula(text, seed)]


def test_shingles_are_hashed_as_their_bytes() -> None:
    cleaned = pa.array(["abcdefghijklmn", "naïve café"], pa.large_string())
    characters = [s for text in cleaned.to_pylist() for s in shingles(text, Shingling("char", 9))]
    found = shingle_hashes(cleaned, Shingling("char", 9)).hashes.tolist()
    assert found == [by_the_formula(shingle.encode(), 0) for shingle in characters]


def test_the_hash_is_the_one_its_name_promises() -> None:
    """Artifacts carry the name `HASH`: whoever changes these values must change the name too."""
    assert HASH == "winnow-xmr64-1"
    row = np.frombuffer(b"abcdefghijklm", np.uint8)[None]
    assert hash_rows(row, seed=0).tolist() == [0x8464CECFA010E2D1]


def test_one_flipped_bit_flips_half_of_the_hash() -> None:
    generator = np.random.default_rng(0)
    bases = generator.integers(0, 256, (64, 13), dtype=np.uint8)
    flips = np.eye(13 * 8, dtype=np.uint8)
    flipped = bases[:, None, :] ^ np.packbits(flips, axis=1)[None]
    changed = hash_rows(flipped.reshape(-1, 13), seed=7).reshape(64, -1) ^ hash_rows(bases, seed=7)[:, None]
    bits = np.unpackbits(changed[..., None].view(np.uint8), axis=-1)
    per_output_bit = bits.mean(axis=(0, 1))  # 6,656 trials: 0.5 ± 0.006
    assert per_output_bit.min() > 0.47
    assert per_output_bit.max() < 0.53
    per_input_bit = bits.mean(axis=(0, 2))  # 4,096 trials: 0.5 ± 0.008
    assert per_input_bit.min() > 0.46
    assert per_input_bit.max() < 0.54


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
