"""Exact Jaccard against Python's sets; the sketch's bounds against the binomial distribution."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from dataproc.dedup.jaccard import SketchBounds, estimate, exact, sketch_bounds

hashes = st.sets(st.integers(0, 30) | st.integers(2**64 - 30, 2**64 - 1), max_size=40)


def as_array(values: set[int]) -> np.ndarray:
    return np.array(sorted(values), np.uint64)


@settings(deadline=None, max_examples=300)
@given(hashes, hashes)
def test_exact_is_the_jaccard_of_the_sets(a: set[int], b: set[int]) -> None:
    expected = len(a & b) / len(a | b) if a | b else 0.0
    assert exact(as_array(a), as_array(b)) == expected


def test_estimate_is_the_share_of_equal_minima() -> None:
    a = np.arange(128, dtype=np.uint32)
    b = np.where(np.arange(128) < 96, a, a + 1).astype(np.uint32)
    assert estimate(a, b) == 0.75


def test_bounds_at_the_default() -> None:
    assert sketch_bounds(0.8, 128) == SketchBounds(reject_at=72, accept_at=126)


@settings(deadline=None, max_examples=50)
@given(st.floats(0.3, 0.99), st.integers(16, 300))
def test_bounds_are_the_binomial_tails(threshold: float, permutations: int) -> None:
    bounds = sketch_bounds(threshold, permutations)
    equal = binom(permutations, threshold)
    assert equal.cdf(bounds.reject_at) < 1.0001e-9
    assert equal.cdf(bounds.reject_at + 1) > 0.9999e-9
    assert equal.sf(bounds.accept_at - 1) < 1.0001e-9
    assert equal.sf(bounds.accept_at - 2) > 0.9999e-9


def test_a_sketch_never_accepts_at_a_threshold_it_cannot_tell() -> None:
    assert sketch_bounds(0.95, 128).accept_at == 129  # 0.95^128 = 0.0014: even 128 of 128 proves nothing
    assert sketch_bounds(1.0, 128) == SketchBounds(reject_at=127, accept_at=129)


@pytest.mark.parametrize("threshold", [0.0, 1.5])
def test_a_threshold_outside_its_range_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=str(threshold)):
        sketch_bounds(threshold, 128)
