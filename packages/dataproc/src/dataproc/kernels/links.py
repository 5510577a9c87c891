"""Buckets → links between near-duplicates (pairs.py)."""

from typing import NamedTuple

from dataproc.kernels.alike import equal_minima
from dataproc.kernels.build import part
from dataproc.kernels.early import level_of
from dataproc.kernels.forest import find, union
from dataproc.native import F64, I64, U32, U64

COMPARISONS, EXACT_CHECKS = 0, 1


class _Evidence(NamedTuple):
    """As `pairs.Evidence`, the signatures flat."""

    signatures: U32
    permutations: int
    hashes: U64
    starts: I64
    sizes: I64
    looked_at: I64


class _Limits(NamedTuple):
    """What decides whether two documents are linked."""

    thresholds: F64
    reject_at: int
    accept_at: int


def link_buckets(
    members: I64,
    bounds: I64,
    signatures: U32,
    permutations: int,
    hashes: U64,
    starts: I64,
    sizes: I64,
    looked_at: I64,
    thresholds: F64,
    reject_at: int,
    accept_at: int,
    cap: int,
    parent: I64,
    of_member: I64,
    edges: I64,
    effort: I64,
) -> int:
    """Fills `edges` (E, 2), flat; returns how many there are. thresholds: the one that links. parent: components so
    far, and of_member the element of it that stands for each member of the buckets. effort: COMPARISONS, EXACT_CHECKS.

    `whole` says that the documents to compare with are one component. Then the first link, or connection,
    that a document has to any of them settles its connection to all.
    """
    evidence = _Evidence(signatures, permutations, hashes, starts, sizes, looked_at)
    limits = _Limits(thresholds, reject_at, accept_at)
    found = 0
    for bucket in range(len(bounds) - 1):
        whole = True
        first = bounds[bucket]
        for member in range(first + 1, bounds[bucket + 1]):
            position = member - first
            joined, rejected = False, 0
            doc, element = members[member], of_member[member]
            for place in range(first, first + min(position, cap)):
                other = of_member[place]
                if find(parent, other) != find(parent, element):
                    linked, whole_sets = _compare(evidence, limits, members[place], doc)
                    effort[COMPARISONS] += 1
                    effort[EXACT_CHECKS] += whole_sets
                    if not linked:
                        rejected += 1
                        continue
                    union(parent, other, element)
                    edges[2 * found] = min(members[place], doc)
                    edges[2 * found + 1] = max(members[place], doc)
                    found += 1
                joined = True
                if whole:
                    break
            whole = (joined or position >= cap) if whole else rejected == 0
    return found


@part
def _compare(evidence: _Evidence, limits: _Limits, a: int, b: int) -> tuple[bool, bool]:
    """Whether J ≥ threshold, and whether it took the whole sets to tell."""
    size_a, size_b = evidence.sizes[a], evidence.sizes[b]
    if min(size_a, size_b) / max(size_a, size_b) < limits.thresholds[0]:
        return False, False  # J is at most the quotient of the sizes
    equal = equal_minima(evidence.signatures, evidence.permutations, a, b)
    if equal <= limits.reject_at:
        return False, False
    if equal >= limits.accept_at:
        return True, False
    sets = evidence.starts[a], size_a, evidence.starts[b], size_b
    level, whole_sets = level_of(evidence.hashes, *sets, evidence.looked_at, limits.thresholds, 0, 1)
    return level == 1, whole_sets
