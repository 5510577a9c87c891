"""Deciding about two sets from their smallest hashes, against the sets themselves and the binomial distribution."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from dataproc.dedup.jaccard import ODDS_AGAINST_ERROR
from dataproc.dedup.pairs import Evidence
from dataproc.dedup.shingles import ShingleSets
from dataproc.kernels import early
from dataproc.kernels.early import level_of

NOWHERE = np.zeros(0, np.int64)
MOST_LOOKS = 22


def two_sets(only_a: int, both: int, only_b: int) -> tuple[np.ndarray, int, int, int, int]:
    """As `level_of` takes them: hashes, and where each set lies."""
    count = only_a + both + only_b
    values = np.random.default_rng([only_a, both, only_b]).integers(0, 2**64, count, np.uint64)
    assert len(np.unique(values)) == count
    a, b = np.sort(values[: only_a + both]), np.sort(values[only_a:])
    between = np.zeros(3, np.uint64)
    return np.concatenate([between, a, between, b]), 3, len(a), 6 + len(a), len(b)


def level(sets: tuple[np.ndarray, int, int, int, int], thresholds: list[float]) -> tuple[int, bool]:
    return level_of(*sets, NOWHERE, np.array(thresholds), 0, len(thresholds))


@given(
    st.integers(1, 30_000),
    st.floats(0, 1),
    st.floats(0, 1),
    st.lists(st.sampled_from([0.3, 0.5, 0.8, 0.95, 1.0]), min_size=1, unique=True),
)
def test_levels_are_those_of_the_whole_sets(union: int, shared: float, left: float, thresholds: list[float]) -> None:
    both = max(1, int(union * shared))
    only_a = int((union - both) * left)
    found, _ = level(two_sets(only_a, both, union - both - only_a), sorted(thresholds))
    assert found == sum(both / union >= threshold for threshold in thresholds)


@pytest.mark.parametrize("above", [-1, 0])
def test_pairs_at_a_threshold_are_looked_at_as_a_whole(above: int) -> None:
    assert level(two_sets(1000, 8000 + above, 1000), [0.5, 0.8, 0.95]) == (2 + above, True)


@pytest.mark.parametrize(("jaccard", "expected"), [(0.2, 0), (0.6, 1), (0.9, 2), (0.99, 3)])
def test_of_long_sets_that_are_clear_of_all_thresholds_little_is_read(jaccard: float, expected: int) -> None:
    hashes, *places = two_sets(0, int(100_000 * jaccard), 100_000 - int(100_000 * jaccard))
    hashes[hashes > 2**64 // 5] = np.uint64(2**64 - 1)  # were these read, they would tell something else
    assert level((hashes, *places), [0.5, 0.8, 0.95]) == (expected, False)


@given(st.lists(st.integers(0, 3000), min_size=2, max_size=6), st.integers(0, 2**32), st.sampled_from([0.1, 0.5, 1.0]))
def test_pairs_reach_a_threshold_where_their_jaccard_index_does(sizes: list[int], seed: int, threshold: float) -> None:
    generator = np.random.default_rng(seed)
    values = generator.integers(0, 2**64, 3000, np.uint64)
    sets = [np.sort(generator.choice(values, size, replace=False)) for size in sizes]
    hashes, offsets = np.concatenate(sets), np.cumsum([0, *sizes])
    evidence = Evidence.of(np.zeros((len(sizes), 1), np.uint32), ShingleSets(hashes, offsets))
    pairs = np.array(list(product(range(len(sizes)), repeat=2)))
    np.testing.assert_array_equal(evidence.reach(pairs, threshold), evidence.jaccard(pairs) >= threshold)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("seen", [50, 300, 1200, 20_000])
def test_all_looks_together_err_as_seldom_as_a_sketch_may(seen: int, threshold: float) -> None:
    """Were J the threshold itself: how often a look at so many hashes would tell, which is an error on either side."""
    sure = [n for n in range(seen + 1) if early._is_sure(n, seen, threshold)]
    below = [n for n in sure if n / seen < threshold]
    above = [n for n in sure if n / seen >= threshold]
    found = binom(seen, threshold)
    for wrong in (found.cdf(max(below, default=-1)), found.sf(min(above, default=seen + 1) - 1)):
        assert MOST_LOOKS * wrong < 1 / ODDS_AGAINST_ERROR
