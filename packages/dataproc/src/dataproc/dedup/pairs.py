"""Band keys → verified links between near-duplicates, as a forest.

In: rows (key u64, doc i64) of one partition of one band or of several, holding every bucket (all rows of a
key) complete; signatures and shingle sets by document number; what is connected already. Out:

    edges     (E, 2) i64    a < b, Jaccard ≥ threshold, each joins two components that were apart
    jaccard   (E,) f32      exact, or NaN where the sketch decided (`jaccard.sketch_bounds`)

Together with `parent` the edges have the components of all pairs that share a key and have an exact Jaccard
index of at least the threshold. A pair whose ends are connected already is not looked at, so a bucket of n
copies costs n comparisons; no list of pairs is ever made. Documents are numbered in the order of their ids,
and all is decided in that order, so the result does not depend on that of the rows.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# Compiled into the kernels below: after a change in one of these two files touch this one too, or numba goes
# on using its cached copy.
from dataproc.dedup.components import find, union
from dataproc.dedup.jaccard import equal_minima, shared_count, sketch_bounds
from dataproc.dedup.kernel import kernel
from dataproc.dedup.shingles import ShingleSets


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


def link(
    keys: NDArray[np.uint64],
    docs: NDArray[np.int64],
    signatures_ND: NDArray[np.uint32],
    sets: ShingleSets,
    parent: NDArray[np.int64],
    *,
    threshold: float,
    cap: int,
) -> Links:
    """See the module's docstring. `docs` number the rows of the three arguments that follow them.

    In a bucket of more than `cap` documents each is compared only with the first `cap`, by number. Every
    document that shares a key must have its shingle set in `sets` (`suspects` names them); leave out
    documents without a signature, which are alike in every band.
    """
    if cap < 1:
        raise ValueError(f"cap: {cap}; a bucket's documents are compared with at least 1")
    members, bounds = _buckets(keys, docs)
    assert (sets.offsets[members] < sets.offsets[members + 1]).all(), "documents share a key but lack their sets"
    reject_at, accept_at = sketch_bounds(threshold, signatures_ND.shape[1])
    evidence = _Evidence(signatures_ND, sets.hashes, sets.offsets, threshold, reject_at, accept_at)
    forest = _Forest(parent.copy(), np.empty((len(members), 2), np.int64), np.empty(len(members), np.float32))
    edges, comparisons, exact_checks = _link_buckets(members, bounds, evidence, forest, cap)
    counters = _count(np.diff(bounds), cap, comparisons, exact_checks)
    return Links(forest.edges[:edges].copy(), forest.jaccard[:edges].copy(), counters)


def suspects(keys: NDArray[np.uint64], docs: NDArray[np.int64]) -> NDArray[np.int64]:
    """The documents, ascending, that share a key with another: `link` will ask for their shingle sets."""
    return np.unique(_buckets(keys, docs)[0])


def identical(hashes_N2: NDArray[np.uint64], docs: NDArray[np.int64]) -> NDArray[np.int64]:
    """128-bit hashes of cleaned texts → edges (E, 2), from the smallest document of a text to each other."""
    order = np.lexsort((docs, hashes_N2[:, 1], hashes_N2[:, 0]))
    ordered, docs = hashes_N2[order], docs[order]
    repeats = np.zeros(len(docs), np.bool_)
    repeats[1:] = (ordered[1:] == ordered[:-1]).all(axis=1)
    firsts = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(docs))))
    return np.stack([docs[firsts[repeats]], docs[repeats]], axis=1)


def _buckets(keys: NDArray[np.uint64], docs: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The documents of all buckets of two or more, by (key, doc), and where each bucket begins and ends."""
    order = np.lexsort((docs, keys))
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([np.ones(min(1, len(keys)), np.bool_), ordered[1:] != ordered[:-1]]))
    sizes = np.diff(starts, append=len(keys))
    members = docs[order][np.repeat(sizes > 1, sizes)]
    return members, np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes[sizes > 1])])


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


class _Evidence(NamedTuple):
    """What decides whether two documents are linked."""

    signatures: NDArray[np.uint32]
    set_hashes: NDArray[np.uint64]
    set_offsets: NDArray[np.int64]
    threshold: float
    reject_at: int
    accept_at: int


class _Forest(NamedTuple):
    """Where the kernels write: components so far, and the edges that joined them."""

    parent: NDArray[np.int64]
    edges: NDArray[np.int64]
    jaccard: NDArray[np.float32]


@kernel
def _link_buckets(
    members: NDArray[np.int64], bounds: NDArray[np.int64], evidence: _Evidence, forest: _Forest, cap: int
) -> tuple[int, int, int]:
    """Fills `forest`; returns how many edges, comparisons and exact checks that took.

    `whole` says that the documents to compare with are one component. Then the first link, or connection,
    that a document has to any of them settles its connection to all.
    """
    edges = comparisons = exact_checks = 0
    for bucket in range(len(bounds) - 1):
        whole = True
        docs = members[bounds[bucket] : bounds[bucket + 1]]
        for position in range(1, len(docs)):
            others = docs[: min(position, cap)]
            joined, rejected, edges_after, checked = _link_document(
                docs[position], others, whole, evidence, forest, edges
            )
            comparisons += edges_after - edges + rejected
            exact_checks += checked
            edges = edges_after
            whole = (joined or position >= cap) if whole else rejected == 0
    return edges, comparisons, exact_checks


@kernel
def _link_document(
    doc: int, others: NDArray[np.int64], whole: bool, evidence: _Evidence, forest: _Forest, edges: int
) -> tuple[bool, int, int, int]:
    """Returns whether it is connected to any of the others, from how many it was rejected, how many edges
    there are now and how many exact checks that took."""
    joined, rejected, checked = False, 0, 0
    for other in others:
        if find(forest.parent, other) != find(forest.parent, doc):
            linked, jaccard = _compare(evidence, other, doc)
            checked += not np.isnan(jaccard)
            if not linked:
                rejected += 1
                continue
            union(forest.parent, other, doc)
            forest.edges[edges, 0], forest.edges[edges, 1] = other, doc
            forest.jaccard[edges] = jaccard
            edges += 1
        joined = True
        if whole:
            break
    return joined, rejected, edges, checked


@kernel
def _compare(evidence: _Evidence, a: int, b: int) -> tuple[bool, float]:
    """Whether J ≥ threshold, and J where it took the exact one to tell, else NaN."""
    set_a = evidence.set_hashes[evidence.set_offsets[a] : evidence.set_offsets[a + 1]]
    set_b = evidence.set_hashes[evidence.set_offsets[b] : evidence.set_offsets[b + 1]]
    if min(len(set_a), len(set_b)) / max(len(set_a), len(set_b)) < evidence.threshold:
        return False, np.nan  # J is at most the quotient of the sizes
    equal = equal_minima(evidence.signatures[a], evidence.signatures[b])
    if equal <= evidence.reject_at:
        return False, np.nan
    if equal >= evidence.accept_at:
        return True, np.nan
    shared = shared_count(set_a, set_b)
    jaccard = shared / (len(set_a) + len(set_b) - shared)
    return jaccard >= evidence.threshold, jaccard
