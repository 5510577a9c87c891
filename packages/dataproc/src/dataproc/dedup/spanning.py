"""Edges with levels → a forest that connects whatever they connect, at every level.

An edge of level l is there at all levels up to l. In: rows (a, b, level ≥ 1) i64 over elements 0 … N - 1, in any order
and any number of batches. Out, and carried from batch to batch, however many edges there are:

    forest_N2  i64    of each element: its parent (a root is its own), and the level of that link (0 at a root)

Two elements are connected by the edges of level ≥ l iff they are by the links of level ≥ l. A maximum spanning forest
of the edges does the same, but its paths may be long. Here every element has a random rank, and its parent the highest
of all that it is connected with at the link's level, so that paths are of logarithmic length.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dataproc.compiled import kernel
from dataproc.dedup.components import connect, labels
from dataproc.native import I64

PARENT, LEVEL = 0, 1


def alone(elements: int) -> I64:
    """A forest in which nothing is connected."""
    return np.stack([np.arange(elements, dtype=np.int64), np.zeros(elements, np.int64)], axis=1)


def add(forest_N2: I64, edges_E3: I64) -> None:
    """Takes in edges, in place."""
    _insert_all(forest_N2, edges_E3)


def added(forest_N2: I64, before_N2: I64) -> I64:
    """What `before_N2` lacks of a forest that was made from it, as edges."""
    changed = np.flatnonzero((forest_N2 != before_N2).any(axis=1))
    return np.concatenate([changed[:, None], forest_N2[changed]], axis=1)


def components(forest_N2: I64, level: int) -> I64:
    """The components of all edges of this level and above: for each element, the smallest in its own."""
    linked = np.flatnonzero(forest_N2[:, LEVEL] >= level)
    edges_E2 = np.stack([linked, forest_N2[linked, PARENT]], axis=1)
    return labels(connect(np.arange(len(forest_N2), dtype=np.int64), edges_E2))


@kernel
def top(forest_N2: I64, element: int, level: int) -> int:
    """The highest-ranking of what an element is connected with at a level ≥ 1."""
    while forest_N2[element, LEVEL] >= level:
        element = forest_N2[element, PARENT]
    return element


@kernel
def insert(forest_N2: I64, a: int, b: int, level: int) -> None:
    """Takes in an edge. A link that it outdoes is taken out, and in again as an edge from the same element."""
    while level > 0:
        a, b = top(forest_N2, a, level), top(forest_N2, b, level)
        if a == b:
            return
        if _rank(a) > _rank(b):
            a, b = b, a
        parent, level_before = forest_N2[a, PARENT], forest_N2[a, LEVEL]
        forest_N2[a, PARENT], forest_N2[a, LEVEL] = b, level
        b, level = parent, level_before


@kernel
def _rank(element: int) -> np.uint64:
    """splitmix64's finaliser; no two elements have one rank."""
    h = np.uint64(element) + np.uint64(0x9E3779B97F4A7C15)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


@kernel
def _insert_all(forest_N2: I64, edges_E3: NDArray[np.int64]) -> None:
    for row in range(len(edges_E3)):
        insert(forest_N2, edges_E3[row, 0], edges_E3[row, 1], edges_E3[row, 2])
