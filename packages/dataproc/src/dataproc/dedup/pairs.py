"""Buckets → verified links between near-duplicates, as a forest.

In: the buckets of one partition of one band (buckets.py); signatures and shingle sets by document number; what is
connected already. Out:

    edges     (E, 2) i64    a < b, Jaccard ≥ threshold, each joins two components that were apart

Together with what was connected before, the edges have the components of all pairs that share a key and have an exact
Jaccard index of at least the threshold. A pair whose ends are connected already is not looked at, so a bucket of n
copies costs n comparisons; no list of pairs is ever made. Memory goes with the members of the buckets, not with all
documents.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.buckets import Buckets
from dataproc.dedup.jaccard import sketch_bounds
from dataproc.dedup.shingles import ShingleSets
from dataproc.native import Native

_link_buckets = Native("dataproc.kernels.links", "link_buckets")
_shared_each = Native("dataproc.kernels.alike", "shared_each")
_reach_each = Native("dataproc.kernels.early", "reach_each")


class Evidence(NamedTuple):
    """What is known of documents, by number: signatures (N, D), and where the set of each lies in `hashes`.

    hashes[starts[d] : starts[d] + sizes[d]] are the distinct shingle hashes of document d, ascending. looked_at is for
    hashes that are a large mapped file (resident.py).
    """

    signatures: NDArray[np.uint32]
    hashes: NDArray[np.uint64]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    looked_at: NDArray[np.int64]

    def jaccard(self, pairs_E2: NDArray[np.int64]) -> NDArray[np.float64]:
        """The exact Jaccard index of each pair (E,); 0 of two documents without a shingle."""
        pairs_E2 = np.ascontiguousarray(pairs_E2, np.int64)
        together = self.sizes[pairs_E2].sum(axis=1)  # raises IndexError, which the kernel would not
        shared = np.empty(len(pairs_E2), np.int64)
        _shared_each(self.hashes, self.starts, self.sizes, self.looked_at, pairs_E2.reshape(-1), shared)
        return np.asarray(shared / np.maximum(together - shared, 1))

    def reach(self, pairs_E2: NDArray[np.int64], threshold: float) -> NDArray[np.bool_]:
        """Which pairs have a Jaccard index of at least the threshold, by as much of their sets as can tell."""
        pairs_E2 = np.ascontiguousarray(pairs_E2, np.int64)
        self.sizes[pairs_E2]  # raises IndexError, which the kernel would not
        reached = np.zeros(len(pairs_E2), np.uint8)
        of_sets = self.hashes, self.starts, self.sizes, self.looked_at
        _reach_each(*of_sets, pairs_E2.reshape(-1), np.array([threshold]), reached)
        return reached > 0

    @classmethod
    def of(cls, signatures_ND: NDArray[np.uint32], sets: ShingleSets) -> "Evidence":
        return cls(signatures_ND, sets.hashes, sets.offsets[:-1], np.diff(sets.offsets), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Counters:
    """What a call of `link` did. A bucket counts if it has two rows or more."""

    buckets: int
    largest_bucket: int
    capped_buckets: int
    comparisons: int  # pairs that were looked at …
    exact_checks: int  # … of which so many by their whole sets, the others by size or sketch
    skipped_pairs: int  # ends connected already
    capped_pairs: int  # left out by the cap


@dataclass(frozen=True)
class Links:
    edges: NDArray[np.int64]
    counters: Counters


def link(found: Buckets, evidence: Evidence, component: NDArray[np.int64], *, threshold: float, cap: int) -> Links:
    """See the module's docstring. The members of buckets number the rows of `evidence` and of `component`, which holds
    what is connected already: equal numbers.

    In a bucket of more than `cap` documents each is compared only with the first `cap` that the bucket lists. Leave
    out documents without a shingle, which are alike in every band.
    """
    if cap < 1:
        raise ValueError(f"cap: {cap}; a bucket's documents are compared with at least 1")
    assert evidence.sizes[found.members].all(), "documents share a key but lack their sets"
    size = len(found.members)
    components, of_member = np.unique(component[found.members], return_inverse=True)
    edges_E2, effort = np.empty((size, 2), np.int64), np.zeros(2, np.int64)
    edges = _link_buckets(
        *found,
        evidence.signatures.reshape(-1),
        evidence.signatures.shape[1],
        *evidence[1:],
        np.array([threshold]),
        *sketch_bounds(threshold, evidence.signatures.shape[1]),
        cap,
        np.arange(len(components), dtype=np.int64),
        of_member,
        edges_E2.reshape(-1),
        effort,
    )
    comparisons, exact_checks = effort.tolist()
    counters = _count(found.sizes, cap, comparisons, exact_checks)
    return Links(edges_E2[:edges].copy(), counters)


def _count(sizes: NDArray[np.int64], cap: int, comparisons: int, exact_checks: int) -> Counters:
    first = np.minimum(sizes, cap)
    compared_pairs = int((first * (first - 1) // 2 + (sizes - first) * first).sum())
    return Counters(
        buckets=len(sizes),
        largest_bucket=int(sizes.max(initial=0)),
        capped_buckets=int((sizes > cap).sum()),
        comparisons=comparisons,
        exact_checks=exact_checks,
        skipped_pairs=compared_pairs - comparisons,
        capped_pairs=int((sizes * (sizes - 1) // 2).sum()) - compared_pairs,
    )
