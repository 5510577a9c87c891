"""Buckets → verified links between near-duplicates, as a forest.

In: the buckets of one partition of one band (buckets.py); signatures and shingle sets by document number; what is
connected already. Out:

    edges     (E, 2) i64    a < b, Jaccard ≥ threshold, each joins two components that were apart
    jaccard   (E,) f32      exact, or NaN where the sketch decided (`jaccard.sketch_bounds`)

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

# Compiled into the kernels below: after a change in one of these files touch this one too, or numba goes
# on using its cached copy.
from dataproc.dedup.components import find, union
from dataproc.dedup.jaccard import equal_minima, sketch_bounds
from dataproc.dedup.kernel import kernel
from dataproc.dedup.resident import shared_of
from dataproc.dedup.shingles import ShingleSets


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

    def jaccard(self, a: int, b: int) -> float:
        """The exact Jaccard index of two documents; 0 for two without a shingle."""
        size_a, size_b = int(self.sizes[a]), int(self.sizes[b])
        shared = shared_of(self.hashes, int(self.starts[a]), size_a, int(self.starts[b]), size_b, self.looked_at)
        union = size_a + size_b - shared
        return shared / union if union else 0.0

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
    exact_checks: int  # … of which so many by exact Jaccard, the others by size or sketch
    skipped_pairs: int  # ends connected already
    capped_pairs: int  # left out by the cap


@dataclass(frozen=True)
class Links:
    edges: NDArray[np.int64]
    jaccard: NDArray[np.float32]
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
    limits = _Limits(threshold, *sketch_bounds(threshold, evidence.signatures.shape[1]))
    size = len(found.members)
    components, of_member = np.unique(component[found.members], return_inverse=True)
    parent = np.arange(len(components), dtype=np.int64)
    forest = _Forest(parent, of_member, np.empty((size, 2), np.int64), np.empty(size, np.float32))
    edges, comparisons, exact_checks = _link_buckets(found, evidence, limits, forest, cap)
    counters = _count(found.sizes, cap, comparisons, exact_checks)
    return Links(forest.edges[:edges].copy(), forest.jaccard[:edges].copy(), counters)


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


class _Limits(NamedTuple):
    """What decides whether two documents are linked."""

    threshold: float
    reject_at: int
    accept_at: int


class _Forest(NamedTuple):
    """Where the kernels write: components so far, and the edges that joined them. of_member: the element of `parent`
    that stands for each member of the buckets.
    """

    parent: NDArray[np.int64]
    of_member: NDArray[np.int64]
    edges: NDArray[np.int64]
    jaccard: NDArray[np.float32]


@kernel
def _link_buckets(
    found: Buckets, evidence: Evidence, limits: _Limits, forest: _Forest, cap: int
) -> tuple[int, int, int]:
    """Fills `forest`; returns how many edges, comparisons and exact checks that took.

    `whole` says that the documents to compare with are one component. Then the first link, or connection,
    that a document has to any of them settles its connection to all.
    """
    edges = comparisons = exact_checks = 0
    for bucket in range(len(found.bounds) - 1):
        whole = True
        first = found.bounds[bucket]
        for member in range(first + 1, found.bounds[bucket + 1]):
            position = member - first
            joined, rejected, edges_after, checked = _link_member(
                member, first, first + min(position, cap), whole, found.members, evidence, limits, forest, edges
            )
            comparisons += edges_after - edges + rejected
            exact_checks += checked
            edges = edges_after
            whole = (joined or position >= cap) if whole else rejected == 0
    return edges, comparisons, exact_checks


@kernel
def _link_member(
    member: int,
    first: int,
    end: int,
    whole: bool,
    members: NDArray[np.int64],
    evidence: Evidence,
    limits: _Limits,
    forest: _Forest,
    edges: int,
) -> tuple[bool, int, int, int]:
    """A member against those from `first` to `end`. Returns whether it is connected to any of them, from how many it
    was rejected, how many edges there are now and how many exact checks that took."""
    joined, rejected, checked = False, 0, 0
    doc, element = members[member], forest.of_member[member]
    for place in range(first, end):
        other = forest.of_member[place]
        if find(forest.parent, other) != find(forest.parent, element):
            linked, jaccard = _compare(evidence, limits, members[place], doc)
            checked += not np.isnan(jaccard)
            if not linked:
                rejected += 1
                continue
            union(forest.parent, other, element)
            forest.edges[edges, 0] = min(members[place], doc)
            forest.edges[edges, 1] = max(members[place], doc)
            forest.jaccard[edges] = jaccard
            edges += 1
        joined = True
        if whole:
            break
    return joined, rejected, edges, checked


@kernel
def _compare(evidence: Evidence, limits: _Limits, a: int, b: int) -> tuple[bool, float]:
    """Whether J ≥ threshold, and J where it took the exact one to tell, else NaN."""
    size_a, size_b = evidence.sizes[a], evidence.sizes[b]
    if min(size_a, size_b) / max(size_a, size_b) < limits.threshold:
        return False, np.nan  # J is at most the quotient of the sizes
    equal = equal_minima(evidence.signatures[a], evidence.signatures[b])
    if equal <= limits.reject_at:
        return False, np.nan
    if equal >= limits.accept_at:
        return True, np.nan
    shared = shared_of(evidence.hashes, evidence.starts[a], size_a, evidence.starts[b], size_b, evidence.looked_at)
    jaccard = shared / (size_a + size_b - shared)
    return jaccard >= limits.threshold, jaccard
