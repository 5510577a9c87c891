"""Edges between texts → what is connected, without looking at more of an index than that.

The near-duplicates of a text are found in some entry of the log. Of all these pairs only a maximum spanning forest is
stored: as many edges as it takes to connect what is connected, by the largest Jaccard indices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.components import connect, joins, labels
from dataproc.dedup.index.state import Index
from dataproc.dedup.index.tables import EDGES, read_table
from dataproc.dedup.index.tables import find as find_rows
from dataproc.native import F64, I64


class Edges(NamedTuple):
    """Pairs of texts with their exact Jaccard indices."""

    a: I64
    b: I64
    jaccard: F64

    def at(self, rows: I64 | NDArray[np.bool_]) -> Edges:
        """Some of them."""
        return Edges(self.a[rows], self.b[rows], self.jaccard[rows])

    @property
    def ends_E2(self) -> I64:
        return np.stack([self.a, self.b], axis=1)


class Reached(NamedTuple):
    """Living texts, ascending, and the smallest text of each one's component."""

    texts: I64
    component: I64

    def component_of(self, texts: I64) -> I64:
        """Of some of the texts."""
        return self.component[np.searchsorted(self.texts, texts)]


def no_edges() -> Edges:
    return Edges(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))


def joined(edges: list[Edges]) -> Edges:
    """Edges end to end."""
    return Edges(*(np.concatenate(column) for column in zip(no_edges(), *edges, strict=True)))


def spanning(edges: Edges, connected: Reached | None = None) -> Edges:
    """The maximum spanning forest, given what is connected already. Equal edges are taken in order of their ends."""
    low, high = np.minimum(edges.a, edges.b), np.maximum(edges.a, edges.b)
    if connected is not None:
        low, high = _root(connected, low), _root(connected, high)
    order = np.lexsort((edges.b, edges.a, -edges.jaccard))
    nodes, ends = np.unique(np.concatenate([low, high]), return_inverse=True)
    pairs_E2 = ends.reshape(2, -1).T[order]
    return edges.at(np.sort(order[joins(pairs_E2, len(nodes))]))


def components(texts: I64, edges: Edges) -> I64:
    """The smallest text of each one's component. texts: ascending, with all ends of edges among them."""
    return texts[labels(connect(np.arange(len(texts)), np.searchsorted(texts, edges.ends_E2)))]


def reach(index: Index, texts: I64, dead: I64) -> Reached:
    """The components of some living texts, read edge by edge. dead: texts without whom it is to be, ascending."""
    members = frontier = np.unique(texts)
    edges = no_edges()
    while len(frontier):
        found = _edges_from(index, frontier)
        found = found.at(~np.isin(found.b, dead))
        edges = joined([edges, found])
        frontier = np.setdiff1d(found.b, members)
        members = np.union1d(members, frontier)
    return Reached(members, components(members, edges))


def _edges_from(index: Index, texts: I64) -> Edges:
    found = []
    for path in index.with_edges():
        a, b, jaccard = read_table(path, EDGES)
        rows = find_rows(a, texts).rows
        found.append(Edges(a[rows].astype(np.int64), b[rows].astype(np.int64), jaccard[rows].astype(np.float64)))
    return joined(found)


def _root(connected: Reached, texts: I64) -> I64:
    """What stands for each text's component: its smallest text, or itself if it is not among the connected."""
    if not len(connected.texts):
        return texts
    place = np.minimum(np.searchsorted(connected.texts, texts), len(connected.texts) - 1)
    return np.where(connected.texts[place] == texts, connected.component[place], texts)
