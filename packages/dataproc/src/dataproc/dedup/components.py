"""Edges → connected components, by union-find over one array.

`parent` (N,) i64 is a forest over the elements 0 … N - 1: a root is its own parent, and no parent is larger
than its child, so the root of a component is its smallest element. `np.arange(N)` connects nothing.

    edges (E, 2) i64  →  parent (N,) i64  →  labels (N,) i64, the smallest element of each one's component
"""

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.kernel import kernel


def connect(parent: NDArray[np.int64], edges_E2: NDArray[np.int64]) -> NDArray[np.int64]:
    """A new forest in which the ends of every edge are connected too."""
    if len(edges_E2) and (edges_E2.min() < 0 or edges_E2.max() >= len(parent)):
        raise ValueError(
            f"edges join elements {edges_E2.min()} to {edges_E2.max()}, but there are {len(parent)} elements"
        )
    connected = parent.copy()
    _merge(connected, edges_E2)
    return connected


def labels(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """The root of every element."""
    roots = parent.copy()
    _flatten(roots)
    return roots


@kernel
def find(parent: NDArray[np.int64], element: int) -> int:
    """The root of an element; halves the path to it on the way."""
    while parent[element] != element:
        parent[element] = parent[parent[element]]
        element = parent[element]
    return element


@kernel
def union(parent: NDArray[np.int64], a: int, b: int) -> None:
    """Joins the components of two elements under the smaller root."""
    root_a, root_b = find(parent, a), find(parent, b)
    parent[max(root_a, root_b)] = min(root_a, root_b)


@kernel
def join_buckets(parent: NDArray[np.int64], members: NDArray[np.int64], bounds: NDArray[np.int64]) -> int:
    """Connects, in place, all members of each bucket. Returns how many unions that took."""
    joined = 0
    for bucket in range(len(bounds) - 1):
        first = members[bounds[bucket]]
        for other in members[bounds[bucket] + 1 : bounds[bucket + 1]]:
            if find(parent, first) != find(parent, other):
                union(parent, first, other)
                joined += 1
    return joined


@kernel
def _merge(parent: NDArray[np.int64], edges_E2: NDArray[np.int64]) -> None:
    for edge in range(len(edges_E2)):
        union(parent, edges_E2[edge, 0], edges_E2[edge, 1])


@kernel
def _flatten(parent: NDArray[np.int64]) -> None:
    """One pass is enough: a parent is smaller than its child, hence already flat."""
    for element in range(len(parent)):
        parent[element] = parent[parent[element]]
