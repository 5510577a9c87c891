"""Signatures against datasketch, value by value; sketches of raw texts against the steps they are made of."""

import tracemalloc

import datasketch
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataproc.dedup.cleaning import clean_all
from dataproc.dedup.minhash import Scheme, Sketches, is_signed, signatures, sketch
from dataproc.dedup.shingles import ShingleHashes, Shingling, shingle_hashes, text_hashes


def random_documents(sizes: list[int], seed: int) -> ShingleHashes:
    hashes = np.random.default_rng(seed).integers(0, 2**64, sum(sizes), dtype=np.uint64)
    return ShingleHashes(hashes, np.cumsum([0, *sizes]))


def by_datasketch(documents: ShingleHashes, permutations: int, seed: int, scheme: Scheme) -> np.ndarray:
    def one(low_halves: list[int]) -> np.ndarray:
        sketch = datasketch.MinHash(permutations, seed, hashfunc=lambda value: value, scheme=scheme)
        sketch.update_batch(low_halves)
        return sketch.hashvalues

    rows = np.split(documents.hashes & np.uint64(0xFFFFFFFF), documents.offsets[1:-1])
    return np.array([one(row.tolist()) for row in rows])


@pytest.mark.parametrize("scheme", ["affine32", "legacy"])
@pytest.mark.parametrize(("permutations", "seed"), [(128, 1), (100, 7)])
def test_signatures_are_those_of_datasketch(scheme: Scheme, permutations: int, seed: int) -> None:
    documents = random_documents([0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 511, 512, 513, 3000], seed=3)
    found = signatures(documents, permutations, seed=seed, scheme=scheme)
    assert found.dtype == np.uint32
    np.testing.assert_array_equal(found, by_datasketch(documents, permutations, seed, scheme))


@pytest.mark.parametrize("scheme", ["affine32", "legacy"])
def test_signatures_of_texts_are_those_of_datasketch(scheme: Scheme) -> None:
    texts = pa.array(["The quick brown fox jumps over the lazy dog. " * k + "é" * k for k in range(4)])
    documents = shingle_hashes(clean_all(texts), Shingling("char", 13))
    expected = by_datasketch(documents, 128, 1, scheme)
    np.testing.assert_array_equal(signatures(documents, scheme=scheme), expected)


def test_repeats_and_order_do_not_change_a_signature() -> None:
    once = random_documents([100], seed=0)
    shuffled = np.random.default_rng(1).permutation(np.tile(once.hashes, 3))
    twice = ShingleHashes(shuffled, np.array([0, 300]))
    np.testing.assert_array_equal(signatures(once), signatures(twice))


def test_a_document_without_shingles_is_not_signed() -> None:
    assert is_signed(signatures(random_documents([0, 3, 0], seed=0))).tolist() == [False, True, False]


def test_an_unknown_scheme_is_refused() -> None:
    with pytest.raises(ValueError, match=r"affine64.*affine32"):
        signatures(random_documents([3], seed=0), scheme="affine64")  # type: ignore[arg-type]


def assert_same(found: Sketches, expected: Sketches) -> None:
    for name in ("signatures", "shingles", "text_hash", "characters"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def step_by_step(texts: list[str], shingling: Shingling, permutations: int, scheme: Scheme) -> Sketches:
    cleaned = clean_all(pa.array(texts, pa.string()))
    shingles = shingle_hashes(cleaned, shingling)
    expected = by_datasketch(shingles, permutations, 1, scheme).reshape(-1, permutations)
    characters = np.array([len(text) for text in texts], np.int64)
    return Sketches(expected.astype(np.uint32), np.diff(shingles.offsets), text_hashes(cleaned), characters)


TEXTS = [
    "",
    "twelve chars",
    "no-spaces-at-all" * 70,
    "\0\0 \0",
    "?!... --",
    "The quick brown fox. " * 100,
    "“Curly” quotes — and İstanbul, ΣΑΣ " * 30,
    "السلام عليكم " * 50,
    "語" * 700 + "x" * 100,
    "a b" * 3000,
]


@pytest.mark.parametrize("scheme", ["affine32", "legacy"])
@pytest.mark.parametrize("shingling", [Shingling("char", 13), Shingling("word", 5), Shingling("char", 40)])
def test_a_sketch_is_what_the_steps_make(shingling: Shingling, scheme: Scheme) -> None:
    found = sketch(pa.array(TEXTS), shingling, 100, scheme=scheme)
    assert_same(found, step_by_step(TEXTS, shingling, 100, scheme))


words = st.lists(st.sampled_from("a I don't Ünö  \n Σ and, İ 語語 x\u0301 😀".split(" ")), max_size=300).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(words | st.text(st.characters(exclude_categories=["Cs"]), max_size=80), min_size=1, max_size=6), st.data()
)
def test_a_sketch_of_any_texts_is_what_the_steps_make(texts: list[str], data: st.DataObject) -> None:
    shingling = Shingling(data.draw(st.sampled_from(["char", "word"])), data.draw(st.integers(1, 20)))
    assert_same(sketch(pa.array(texts, pa.string()), shingling, 32), step_by_step(texts, shingling, 32, "affine32"))


@pytest.mark.parametrize("threads", [1, 2, 3, 50])
def test_chunks_slices_string_widths_and_threads_do_not_matter(threads: int) -> None:
    expected = step_by_step(TEXTS, Shingling("char", 5), 32, "affine32")
    chunks = pa.chunked_array([TEXTS[:4], [], TEXTS[4:]], pa.string())
    for texts in (chunks, pa.array(["x", *TEXTS, "y"], pa.large_string()).slice(1, len(TEXTS))):
        assert_same(sketch(texts, Shingling("char", 5), 32, threads=threads), expected)


def test_no_texts_make_no_sketches() -> None:
    for texts in (pa.array([], pa.string()), pa.chunked_array([], pa.large_string())):
        found = sketch(texts, Shingling("char", 13), threads=2)
        assert found.signatures.shape == (0, 128)
        assert found.text_hash.shape == (0, 2)


@pytest.mark.parametrize("shingling", [Shingling("char", 13), Shingling("word", 5)])
@pytest.mark.parametrize("text", ["The quick brown fox, ", "Σίσυφος Σ "])
def test_a_huge_document_takes_little_memory(shingling: Shingling, text: str) -> None:
    texts = pa.array([text * 1_000_000])
    tracemalloc.start()
    try:
        found = sketch(texts, shingling)
        assert tracemalloc.get_traced_memory()[1] < 3 * texts.nbytes
    finally:
        tracemalloc.stop()
    assert_same(found, sketch(pa.array([text * 1_000_000, ""]).slice(0, 1), shingling, threads=2))
    np.testing.assert_array_equal(found.signatures, sketch(pa.array([text * 20]), shingling).signatures)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="row 1"):
        sketch(pa.array(["a", None]), Shingling("char", 13))
    with pytest.raises(TypeError, match="int64"):
        sketch(pa.array([1]), Shingling("char", 13))
    with pytest.raises(ValueError, match="threads"):
        sketch(pa.array(["a"]), Shingling("char", 13), threads=0)
