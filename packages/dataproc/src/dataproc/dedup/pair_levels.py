"""Buckets → how alike their documents are, in levels: the thresholds that each pair reaches, as a forest (spanning.py).

The level of a pair is how many of the thresholds, ascending, are at most its Jaccard index; so the components at level
l are those that dedup at the l-th threshold links, with the same bands. A pair is looked at once, in the first band in
which it shares a key, and only where the answer can change something:

- the sizes of the sets, and the signatures where they cannot err (jaccard.py), bound its level;
- no more is asked if its ends are connected already at the highest level that it can have;
- else the exact Jaccard index decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Compiled into the kernels below: after a change in one of these two files touch this one too, or numba goes
# on using its cached copy.
from dataproc.dedup.jaccard import equal_minima, shared_count, sketch_bounds
from dataproc.dedup.kernel import I64, kernel
from dataproc.dedup.pairs import Evidence
from dataproc.dedup.scoped import ACROSS, FOR_BOTH, Holders, Scoped
from dataproc.dedup.spanning import insert, top


class Cuts(NamedTuple):
    """Thresholds, ascending, with the counts of equal minima that decide on which side of each a pair lies."""

    thresholds: NDArray[np.float64]
    reject_at: NDArray[np.int64]
    accept_at: NDArray[np.int64]

    @classmethod
    def at(cls, thresholds: Sequence[float], permutations: int) -> Cuts:
        bounds_T2 = np.array([sketch_bounds(threshold, permutations) for threshold in thresholds], np.int64)
        return cls(np.array(thresholds, np.float64), bounds_T2[:, 0].copy(), bounds_T2[:, 1].copy())


class Earlier(NamedTuple):
    """The bands, of so many rows each, whose pairs are looked at elsewhere: the earlier ones without a hot bucket."""

    bands: NDArray[np.int64]
    rows: int


class Known(NamedTuple):
    """What pairs are judged by."""

    evidence: Evidence
    cuts: Cuts
    holders: Holders
    earlier: Earlier


class Effort(NamedTuple):
    """comparisons: pairs looked at; of which so many by exact Jaccard."""

    comparisons: int
    exact_checks: int


def compare(found: Scoped, known: Known, forest_N2: I64, *, cap: int) -> Effort:
    """Adds to `forest_N2` (spanning.py), in place, the links of all pairs in these buckets."""
    assert known.evidence.sizes[found.members].all(), "documents share a key but lack their sets"
    return Effort(*_compare_all(found, known, forest_N2, cap))


@kernel
def _compare_all(found: Scoped, known: Known, forest_N2: I64, cap: int) -> tuple[int, int]:
    """`whole` says that the documents to compare with are connected at the highest level. Then a first link, or
    connection, of that level to any of them settles all: so a bucket of n copies costs n comparisons.
    """
    comparisons = exact_checks = 0
    highest = len(known.cuts.thresholds)
    for bucket in range(len(found.bounds) - 1):
        whole = True
        first, last = found.bounds[bucket], found.bounds[bucket + 1]
        for row in range(first + 1, last):
            joined, missed = False, False
            for other in range(first, min(row, first + cap)):
                level = highest
                if not _connected(found, bucket, row, other, forest_N2, highest):
                    level, compared, checked = _look(found, bucket, row, other, known, forest_N2)
                    comparisons += compared
                    exact_checks += checked
                joined |= level == highest
                missed |= level < highest
                if joined and whole:
                    break
            whole = (joined or row >= first + cap) if whole else not missed
    return comparisons, exact_checks


@kernel
def _look(found: Scoped, bucket: int, row: int, other: int, known: Known, forest_N2: I64) -> tuple[int, bool, bool]:
    """A pair that is not connected at the highest level: links it. Returns a level that it has for sure, whether it
    was compared at all, and whether exactly.
    """
    evidence, cuts = known.evidence, known.cuts
    a, b = found.members[other], found.members[row]
    if found.kinds[bucket] == ACROSS and _share_a_source(known.holders, a, b):
        return 0, False, False
    size_a, size_b = evidence.sizes[a], evidence.sizes[b]
    most = _levels(cuts, min(size_a, size_b) / max(size_a, size_b))  # J is at most the quotient of the sizes
    if most == 0 or _share_a_band(evidence, known.earlier, a, b):
        return 0, False, False
    equal = equal_minima(evidence.signatures[a], evidence.signatures[b])
    most = min(most, int(np.searchsorted(cuts.reject_at, equal)))
    least = min(most, int(np.searchsorted(cuts.accept_at, equal, side="right")))
    if most == 0 or _connected(found, bucket, row, other, forest_N2, most):
        return 0, True, False
    if least < most:
        set_a = evidence.hashes[evidence.starts[a] : evidence.starts[a] + size_a]
        set_b = evidence.hashes[evidence.starts[b] : evidence.starts[b] + size_b]
        shared = shared_count(set_a, set_b)
        level = _levels(cuts, shared / (size_a + size_b - shared))
    else:
        level = most
    insert(forest_N2, found.elements[other], found.elements[row], level)
    if found.kinds[bucket] == FOR_BOTH:
        insert(forest_N2, a, b, level)
    return level, True, least < most


@kernel
def _levels(cuts: Cuts, jaccard: float) -> int:
    """How many of the thresholds are reached."""
    level = 0
    while level < len(cuts.thresholds) and jaccard >= cuts.thresholds[level]:
        level += 1
    return level


@kernel
def _connected(found: Scoped, bucket: int, row: int, other: int, forest_N2: I64, level: int) -> bool:
    """Whether a pair is connected at a level, in whatever it would count for."""
    x, y = found.elements[other], found.elements[row]
    if top(forest_N2, x, level) != top(forest_N2, y, level):
        return False
    if found.kinds[bucket] != FOR_BOTH:
        return True
    a, b = found.members[other], found.members[row]
    return top(forest_N2, a, level) == top(forest_N2, b, level)


@kernel
def _share_a_source(holders: Holders, a: int, b: int) -> bool:
    i, j = holders.starts[a], holders.starts[b]
    while i < holders.starts[a + 1] and j < holders.starts[b + 1]:
        if holders.sources[i] == holders.sources[j]:
            return True
        if holders.sources[i] < holders.sources[j]:
            i += 1
        else:
            j += 1
    return False


@kernel
def _share_a_band(evidence: Evidence, earlier: Earlier, a: int, b: int) -> bool:
    """Whether the pair shares a key in one of the bands whose pairs are looked at elsewhere."""
    minima_a, minima_b = evidence.signatures[a], evidence.signatures[b]
    for band in earlier.bands:
        row, last = band * earlier.rows, (band + 1) * earlier.rows
        while row < last and minima_a[row] == minima_b[row]:
            row += 1
        if row == last:
            return True
    return False
