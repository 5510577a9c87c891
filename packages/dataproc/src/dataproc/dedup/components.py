"""Edges → connected components, by union-find over one array.

`parent` (N,) i64 is a forest over the elements 0 … N - 1: a root is its own parent, and no parent is larger
than its child, so the root of a component is its smallest element. `np.arange(N)` connects nothing.

    edges (E, 2) i64  →  parent (N,) i64  →  labels (N,) i64, the smallest element of each one's component
"""

import numpy as np
from numpy.typing import NDArray

from dataproc.native import Native

_merge = Native("dataproc.kernels.forest", "merge")
_flatten = Native("dataproc.kernels.forest", "flatten")
_join_buckets = Native("dataproc.kernels.forest", "join_buckets")
_joins = Native("dataproc.kernels.forest", "joins")


def connect(parent: NDArray[np.int64], edges_E2: NDArray[np.int64]) -> NDArray[np.int64]:
    """A new forest in which the ends of every edge are connected too."""
    if len(edges_E2) and (edges_E2.min() < 0 or edges_E2.max() >= len(parent)):
        raise ValueError(
            f"edges join elements {edges_E2.min()} to {edges_E2.max()}, but there are {len(parent)} elements"
        )
    connected = parent.copy()
    _merge(connected, np.ascontiguousarray(edges_E2, np.int64).reshape(-1))
    return connected


def labels(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """The root of every element."""
    roots = parent.copy()
    _flatten(roots)
    return roots


def join_buckets(parent: NDArray[np.int64], members: NDArray[np.int64], bounds: NDArray[np.int64]) -> int:
    """Connects, in place, all members of each bucket. Returns how many unions that took."""
    return _join_buckets(parent, members, bounds)


def joins(edges_E2: NDArray[np.int64], elements: int) -> NDArray[np.bool_]:
    """Which edges, one after the other, join what was apart."""
    joined = np.empty(len(edges_E2), np.uint8)
    _joins(np.arange(elements, dtype=np.int64), np.ascontiguousarray(edges_E2).reshape(-1), joined)
    return joined.view(np.bool_)
