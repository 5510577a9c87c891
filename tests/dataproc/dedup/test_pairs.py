"""Links against brute force: all pairs that share a key, each checked with Python's sets."""

from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataproc.dedup.band_keys import band_keys
from dataproc.dedup.bands import Bands
from dataproc.dedup.buckets import buckets
from dataproc.dedup.components import connect, labels
from dataproc.dedup.minhash import signatures
from dataproc.dedup.pairs import Evidence, Links, link
from dataproc.dedup.shingles import ShingleHashes, ShingleSets, unique_sorted

NO_CAP = 1_000_000
UNIVERSE = np.random.default_rng(0).integers(0, 2**64, 100_000, dtype=np.uint64)


@dataclass(frozen=True)
class Corpus:
    """Documents as sets of shingle numbers, with what `link` needs of them."""

    members: list[set[int]]
    sets: ShingleSets
    signatures: np.ndarray

    @property
    def alone(self) -> np.ndarray:
        return np.arange(len(self.members))


def corpus(members: list[set[int]]) -> Corpus:
    hashes = np.concatenate([UNIVERSE[sorted(m)] for m in members])
    shingles = ShingleHashes(hashes, np.cumsum([0, *map(len, members)]))
    return Corpus(members, unique_sorted(shingles), signatures(shingles))


def linked(
    found: Corpus, keys: np.ndarray, docs: np.ndarray, parent: np.ndarray, *, threshold: float, cap: int
) -> Links:
    evidence = Evidence.of(found.signatures, found.sets)
    return link(buckets(keys, docs), evidence, labels(parent), threshold=threshold, cap=cap)


def jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)


def brute_force(found: Corpus, keys: np.ndarray, docs: np.ndarray, parent: np.ndarray, threshold: float) -> list[int]:
    rows = range(len(keys))
    edges = [
        (docs[i], docs[j])
        for i, j in combinations(rows, 2)
        if keys[i] == keys[j] and jaccard(found.members[docs[i]], found.members[docs[j]]) >= threshold
    ]
    return labels(connect(parent, np.array(edges, np.int64).reshape(-1, 2))).tolist()


def components_with(links: Links, parent: np.ndarray) -> list[int]:
    return labels(connect(parent, links.edges)).tolist()


def planted(count: int, seed: int) -> Corpus:
    """Groups of documents around a common text, with 0 to 30 % of the shingles of each exchanged."""
    generator = np.random.default_rng(seed)
    members: list[set[int]] = []
    while len(members) < count:
        base = generator.choice(100_000, generator.integers(5, 300), replace=False)
        for _ in range(generator.integers(1, 8)):
            copy = base.copy()
            exchanged = generator.random(len(copy)) < generator.choice([0, 0.02, 0.1, 0.12, 0.3])
            copy[exchanged] = generator.integers(0, 100_000, exchanged.sum())
            members.append(set(copy.tolist()))
    order = generator.permutation(len(members))
    return corpus([members[i] for i in order])


document = st.sets(st.integers(0, 9), min_size=1)
rows = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=40)


@settings(deadline=None, max_examples=150)
@given(
    st.lists(document, min_size=10, max_size=10),
    rows,
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3),
    st.sampled_from([0.3, 0.5, 0.8, 1.0]),
)
def test_components_are_those_of_all_true_pairs_that_share_a_key(
    members: list[set[int]], rows: list[tuple[int, int]], known: list[tuple[int, int]], threshold: float
) -> None:
    found = corpus(members)
    keys = np.array([key for key, _ in rows], np.uint64)
    docs = np.array([doc for _, doc in rows], np.int64)
    parent = connect(found.alone, np.array(known, np.int64).reshape(-1, 2))
    links = linked(found, keys, docs, parent, threshold=threshold, cap=NO_CAP)
    assert components_with(links, parent) == brute_force(found, keys, docs, parent, threshold)


@pytest.mark.parametrize("seed", range(5))
def test_planted_near_duplicates_are_linked_band_by_band(seed: int) -> None:
    found = planted(300, seed)
    keys_NB = band_keys(found.signatures, Bands(21, 6))
    parent = expected = found.alone
    for keys in keys_NB.T:
        expected = np.array(brute_force(found, keys, found.alone, expected, 0.8))
        links = linked(found, keys, found.alone, parent, threshold=0.8, cap=NO_CAP)
        parent = connect(parent, links.edges)
    assert labels(parent).tolist() == expected.tolist()
    assert len(np.unique(expected)) < 300


def test_edges_are_a_forest_of_true_pairs() -> None:
    found = planted(400, seed=9)
    keys = band_keys(found.signatures, Bands(32, 4))
    docs = np.repeat(found.alone, 32)
    links = linked(found, keys.ravel(), docs, found.alone, threshold=0.8, cap=NO_CAP)
    removed = len(found.members) - len(set(components_with(links, found.alone)))
    assert len(links.edges) == removed > 50
    truth = np.array([jaccard(found.members[a], found.members[b]) for a, b in links.edges])
    assert truth.min() >= 0.8
    assert (links.edges[:, 0] < links.edges[:, 1]).all()


def test_rows_may_come_in_any_order() -> None:
    found = planted(300, seed=4)
    keys = band_keys(found.signatures, Bands(21, 6)).ravel()
    docs = np.repeat(found.alone, 21)
    shuffled = np.random.default_rng(0).permutation(len(keys))
    one = linked(found, keys, docs, found.alone, threshold=0.8, cap=3)
    other = linked(found, keys[shuffled], docs[shuffled], found.alone, threshold=0.8, cap=3)
    np.testing.assert_array_equal(one.edges, other.edges)
    assert one.counters == other.counters


def test_sets_and_signatures_may_be_mapped_files(tmp_path: Path) -> None:
    found = planted(100, seed=2)
    mapped = []
    for name, values in (("sets", found.sets.hashes), ("signatures", found.signatures)):
        np.save(tmp_path / name, values)
        mapped.append(np.load(tmp_path / f"{name}.npy", mmap_mode="r"))
    keys = band_keys(found.signatures, Bands(21, 6))[:, 0]
    on_disk = replace(found, sets=ShingleSets(mapped[0], found.sets.offsets), signatures=mapped[1])
    links = linked(on_disk, keys, found.alone, found.alone, threshold=0.8, cap=NO_CAP)
    expected = linked(found, keys, found.alone, found.alone, threshold=0.8, cap=NO_CAP)
    np.testing.assert_array_equal(links.edges, expected.edges)


def test_what_is_known_to_be_connected_is_not_compared_again() -> None:
    found = corpus([set(range(50))] * 4)
    parent = connect(found.alone, np.array([[0, 1], [1, 2], [2, 3]]))
    links = linked(found, np.zeros(4, np.uint64), found.alone, parent, threshold=0.8, cap=NO_CAP)
    assert links.edges.shape == (0, 2)
    assert (links.counters.comparisons, links.counters.skipped_pairs) == (0, 6)


def test_a_bucket_of_copies_takes_one_comparison_each() -> None:
    found = corpus([set(range(50))] * 2000)
    keys = np.zeros(2000, np.uint64)
    links = linked(found, keys, found.alone, found.alone, threshold=0.8, cap=NO_CAP)
    assert len(links.edges) == links.counters.comparisons == 1999
    assert links.counters.exact_checks == 0
    assert links.counters.skipped_pairs == 2000 * 1999 // 2 - 1999


def test_a_capped_bucket_compares_only_with_its_first_members() -> None:
    """Documents 0, 1, 2 differ from all; 3, 4 and 5 are copies, which a cap of 4 sees only through 3."""
    copies = set(range(1000, 1050))
    found = corpus([set(range(50)), set(range(100, 150)), set(range(200, 250)), copies, copies, copies])
    keys = np.full(6, 7, np.uint64)
    capped = linked(found, keys, found.alone, found.alone, threshold=0.8, cap=4)
    assert capped.edges.tolist() == [[3, 4], [3, 5]]
    assert capped.counters.capped_buckets == 1
    assert capped.counters.capped_pairs == 1  # (4, 5)
    tighter = linked(found, keys, found.alone, found.alone, threshold=0.8, cap=3)
    assert tighter.edges.tolist() == []
    assert tighter.counters.comparisons == 3 + 3 * 3
    assert tighter.counters.capped_pairs == 3


@settings(deadline=None, max_examples=100)
@given(st.lists(document, min_size=2, max_size=12), st.integers(1, 12))
def test_a_cap_keeps_the_pairs_with_the_first_members_and_no_others(members: list[set[int]], cap: int) -> None:
    found = corpus(members)
    keys = np.zeros(len(members), np.uint64)
    links = linked(found, keys, found.alone, found.alone, threshold=0.5, cap=cap)
    first = [(a, b) for a, b in combinations(range(len(members)), 2) if a < cap]
    true = [pair for pair in first if jaccard(members[pair[0]], members[pair[1]]) >= 0.5]
    expected = labels(connect(found.alone, np.array(true, np.int64).reshape(-1, 2))).tolist()
    assert components_with(links, found.alone) == expected
    assert links.counters.comparisons + links.counters.skipped_pairs == len(first)


def test_counters_describe_the_buckets() -> None:
    found = corpus([set(range(50)), set(range(50)), set(range(60, 90)), set(range(90, 120))])
    keys = np.array([1, 1, 1, 2, 3], np.uint64)
    docs = np.array([0, 1, 2, 3, 0])
    counters = linked(found, keys, docs, found.alone, threshold=0.8, cap=NO_CAP).counters
    assert (counters.buckets, counters.largest_bucket, counters.capped_buckets) == (1, 3, 0)


def test_nothing_in_nothing_out() -> None:
    found = corpus([{1}])
    links = linked(
        found,
        np.zeros(0, np.uint64),
        np.zeros(0, np.int64),
        found.alone,
        threshold=0.8,
        cap=4,
    )
    assert links.edges.shape == (0, 2)
    assert links.counters.largest_bucket == 0


def test_a_cap_below_one_is_refused() -> None:
    found = corpus([{1}])
    with pytest.raises(ValueError, match="cap"):
        linked(
            found,
            np.zeros(1, np.uint64),
            found.alone,
            found.alone,
            threshold=0.8,
            cap=0,
        )
