"""Buckets against a dictionary of lists."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataproc.dedup.buckets import buckets, may_repeat
from dataproc.dedup.identical import identical

SPREAD = np.uint64(0x9E3779B97F4A7C15)


def by_key(keys: list[int], docs: list[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = defaultdict(list)
    for key, doc in zip(keys, docs, strict=True):
        found[key].append(doc)
    return {key: sorted(of_key) for key, of_key in sorted(found.items()) if len(of_key) > 1}


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1000)), unique=True, max_size=60), st.booleans())
def test_a_bucket_is_all_documents_of_a_key_that_comes_twice(rows: list[tuple[int, int]], spread: bool) -> None:
    keys = [key * (int(SPREAD) if spread else 1) % 2**64 for key, _ in rows]
    docs = [doc for _, doc in rows]
    found = buckets(np.array(keys, np.uint64), np.array(docs, np.int64))
    got = [found.members[a:b].tolist() for a, b in zip(found.bounds[:-1], found.bounds[1:], strict=True)]
    assert got == list(by_key(keys, docs).values())
    assert found.sizes.tolist() == [len(members) for members in got]


@pytest.mark.parametrize("count", [0, 1, 100, 100_000])
def test_few_keys_that_come_once_are_taken_for_more(count: int) -> None:
    keys = np.random.default_rng(0).permutation(np.arange(count, dtype=np.uint64)) * SPREAD
    assert may_repeat(keys).sum() <= 0.2 * count
    assert may_repeat(np.concatenate([keys, keys])).all()


def test_identical_texts_become_a_star_around_the_smallest_document() -> None:
    hashes = np.array([[1, 1], [2, 1], [1, 1], [1, 2], [1, 1], [2, 1]], np.uint64)
    docs = np.array([9, 4, 3, 2, 7, 1])
    assert sorted(identical(hashes, docs).tolist()) == [[1, 4], [3, 7], [3, 9]]
