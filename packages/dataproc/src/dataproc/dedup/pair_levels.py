"""Buckets → how alike their documents are, in levels: the thresholds that each pair reaches, as a forest (spanning.py).

The level of a pair is how many of the thresholds, ascending, are at most its Jaccard index; so the components at level
l are those that dedup at the l-th threshold links, with the same bands. A pair is looked at once, in the first band in
which it shares a key, and only where the answer can change something:

- the sizes of the sets, and the signatures where they cannot err (jaccard.py), bound its level;
- no more is asked if its ends are connected already at the highest level that it can have;
- else as much of the sets as it takes decides (kernels/early.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataproc.compiled import kernel
from dataproc.dedup.jaccard import sketch_bounds
from dataproc.dedup.pairs import Evidence
from dataproc.dedup.scoped import ACROSS, FOR_BOTH, Holders, Scoped
from dataproc.dedup.spanning import insert, top

# Compiled into the kernels below: after a change in kernels/alike.py, kernels/early.py, spanning.py or the constants of
# scoped.py touch this file too, or numba goes on using its cached copy.
from dataproc.kernels.alike import equal_minima
from dataproc.kernels.early import level_of
from dataproc.native import I64


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
    """What was looked at in the bands before: pairs that share one of them, of so many rows each, unless both are
    elements[starts[band] : starts[band + 1]], ascending, which are beyond the cap there.
    """

    rows: int
    starts: NDArray[np.int64]
    elements: NDArray[np.int64]


class Known(NamedTuple):
    """What pairs are judged by."""

    evidence: Evidence
    cuts: Cuts
    holders: Holders
    earlier: Earlier


class Effort(NamedTuple):
    """comparisons: pairs looked at; of which so many by their whole sets."""

    comparisons: int
    exact_checks: int


def compare(found: Scoped, known: Known, forest_N2: I64, *, cap: int) -> Effort:
    """Adds to `forest_N2` (spanning.py), in place, the links of all pairs in these buckets."""
    assert known.evidence.sizes[found.members].all(), "documents share a key but lack their sets"
    return Effort(*_compare_all(found, known, forest_N2, cap))


class _Pair(NamedTuple):
    """Two candidates, the elements x and y that they are here, and what a link counts for (scoped.py)."""

    a: int
    b: int
    x: int
    y: int
    kind: int


@kernel
def _compare_all(found: Scoped, known: Known, forest_N2: I64, cap: int) -> tuple[int, int]:
    """`whole` says that the documents to compare with are connected at the highest level. Then a first link, or
    connection, of that level to any of them settles all: so a bucket of n copies costs n comparisons.
    """
    comparisons = exact_checks = 0
    highest = len(known.cuts.thresholds)
    members, elements = found.members, found.elements
    for bucket in range(len(found.bounds) - 1):
        whole = True
        first, last = found.bounds[bucket], found.bounds[bucket + 1]
        for row in range(first + 1, last):
            joined, missed = False, False
            for other in range(first, min(row, first + cap)):
                pair = _Pair(members[other], members[row], elements[other], elements[row], found.kinds[bucket])
                level = highest
                if not _connected(forest_N2, pair, highest):
                    level = 0
                    if not _was_looked_at(known.evidence.signatures, known.earlier, pair):
                        level, compared, checked = _look(known, forest_N2, pair)
                        comparisons += compared
                        exact_checks += checked
                joined |= level == highest
                missed |= level < highest
                if joined and whole:
                    break
            whole = (joined or row >= first + cap) if whole else not missed
    return comparisons, exact_checks


@kernel
def _connected(forest_N2: I64, pair: _Pair, level: int) -> bool:
    """Whether a pair is connected at a level, in all that it counts for."""
    if top(forest_N2, pair.x, level) != top(forest_N2, pair.y, level):
        return False
    return pair.kind != FOR_BOTH or top(forest_N2, pair.a, level) == top(forest_N2, pair.b, level)


@kernel
def _was_looked_at(signatures_CD: NDArray[np.uint32], earlier: Earlier, pair: _Pair) -> bool:
    """Whether a band before this one has the pair, for all that it counts for."""
    for band in range(len(earlier.starts) - 1):
        equal = True
        for place in range(band * earlier.rows, (band + 1) * earlier.rows):
            if signatures_CD[pair.a, place] != signatures_CD[pair.b, place]:
                equal = False
                break
        if equal and (earlier.starts[band] == earlier.starts[band + 1] or not _left_out(earlier, band, pair)):
            return True
    return False


@kernel
def _left_out(earlier: Earlier, band: int, pair: _Pair) -> bool:
    """Whether the cap kept a pair from being looked at in a band that it shares."""
    beyond = earlier.elements[earlier.starts[band] : earlier.starts[band + 1]]
    if _holds(beyond, pair.x) and _holds(beyond, pair.y):
        return True
    return pair.kind == FOR_BOTH and _holds(beyond, pair.a) and _holds(beyond, pair.b)


@kernel
def _holds(elements: I64, element: int) -> bool:
    place = np.searchsorted(elements, element)
    return bool(place < len(elements) and elements[place] == element)


@kernel
def _look(known: Known, forest_N2: I64, pair: _Pair) -> tuple[int, bool, bool]:
    """Links a pair that is not connected at the highest level. Returns a level that it has for sure, whether it was
    compared at all, and whether exactly.
    """
    evidence, cuts, a, b = known.evidence, known.cuts, pair.a, pair.b
    if pair.kind == ACROSS and _share_a_source(known.holders, a, b):
        return 0, False, False
    size_a, size_b = evidence.sizes[a], evidence.sizes[b]
    most = _levels(cuts, min(size_a, size_b) / max(size_a, size_b))  # J is at most the quotient of the sizes
    if most == 0:
        return 0, False, False
    equal = equal_minima(evidence.signatures.reshape(-1), evidence.signatures.shape[1], a, b)
    most = min(most, int(np.searchsorted(cuts.reject_at, equal)))
    least = min(most, int(np.searchsorted(cuts.accept_at, equal, side="right")))
    if most == 0 or _connected(forest_N2, pair, most):
        return 0, True, False
    sets = evidence.starts[a], size_a, evidence.starts[b], size_b
    level, whole_sets = most, False
    if least < most:
        level, whole_sets = level_of(evidence.hashes, *sets, evidence.looked_at, cuts.thresholds, least, most)
    insert(forest_N2, pair.x, pair.y, level)
    if pair.kind == FOR_BOTH:
        insert(forest_N2, a, b, level)
    return level, True, whole_sets


@kernel
def _levels(cuts: Cuts, jaccard: float) -> int:
    """How many of the thresholds are reached."""
    level = 0
    while level < len(cuts.thresholds) and jaccard >= cuts.thresholds[level]:
        level += 1
    return level


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
