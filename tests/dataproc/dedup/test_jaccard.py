"""Exact Jaccard against Python's sets; the sketch's bounds against the binomial distribution."""

import math
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from dataproc.dedup.jaccard import SketchBounds, estimate, exact, sketch_bounds
from dataproc.dedup.pairs import Evidence
from dataproc.dedup.resident import RESIDENT
from dataproc.kernels.alike import shared_of

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


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 200), st.integers(1, 5), st.integers(1, 5))
def test_sets_in_a_mapped_file_share_the_same_while_it_is_given_back(start: int, every_a: int, every_b: int) -> None:
    """Sets of millions, in steps, with the file's pages given back in between."""
    values = np.arange(start, 6_000_000, dtype=np.uint64)
    a, b = values[::every_a], values[::every_b]
    with tempfile.TemporaryFile() as file:
        file.write(np.concatenate([np.zeros(start, np.uint64), a, b]).data)
        file.flush()
        hashes = np.asarray(np.memmap(file, np.uint64, "r"))
        sizes = np.array([len(a), len(b)])
        starts = np.array([start, start + len(a)])
        for looked_at in (np.zeros(0, np.int64), np.array([RESIDENT])):  # the first step of the latter gives back
            evidence = Evidence(np.zeros((2, 1), np.uint32), hashes, starts, sizes, looked_at)
            shared = -(-len(values) // math.lcm(every_a, every_b))
            assert evidence.jaccard(np.array([[0, 1]])) == [shared / (len(a) + len(b) - shared)]


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 300), st.integers(1, 300), st.integers(0, 300), st.integers(0, 700))
def test_counting_may_end_once_too_few_can_be_shared(only_a: int, both: int, only_b: int, needed: int) -> None:
    """Sets of some lengths, mixed: the count is right where it is as large as needed, and too small elsewhere."""
    count = only_a + both + only_b
    values = np.random.default_rng([only_a, both, only_b]).permutation(np.arange(count, dtype=np.uint64))
    a, b = np.sort(values[: only_a + both]), np.sort(values[only_a:])
    found = shared_of(np.concatenate([a, b]), 0, len(a), len(a), len(b), np.zeros(0, np.int64), needed)
    assert found == both if both >= needed else found < needed


def test_what_is_read_of_a_mapped_file_does_not_stay_in_memory(tmp_path: Path) -> None:
    sets = np.arange(60_000_000, dtype=np.uint64)
    sets.tofile(tmp_path / "sets")
    script = f"""
import numpy as np
from pathlib import Path
from dataproc.dedup.pairs import Evidence
from dataproc.dedup.resident import counter

def resident():
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("RssFile:"))

hashes = np.asarray(np.memmap({str(tmp_path / "sets")!r}, np.uint64, "r"))
starts, sizes = np.array([0, 10**6]), np.array([10**6, 59 * 10**6])
evidence = Evidence(np.zeros((2, 1), np.uint32), hashes, starts, sizes, counter(hashes))
assert evidence.jaccard(np.array([[0, 0]])) == [1.0]
before = resident()
assert evidence.jaccard(np.array([[1, 1]])) == [1.0]
print(resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=True)
    assert int(done.stdout) < 300_000  # kB, of 460,000
