"""Signatures against datasketch, value by value."""

import datasketch
import numpy as np
import pyarrow as pa
import pytest

from dataproc.dedup.cleaning import clean_all
from dataproc.dedup.minhash import Scheme, is_signed, signatures
from dataproc.dedup.shingles import ShingleHashes, Shingling, shingle_hashes


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
    documents = random_documents([0, 1, 2, 7, 8, 9, 63, 1000], seed=3)
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
