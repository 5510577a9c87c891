"""A forest with levels → what every scope keeps of each source, at every level.

The survivor of a component is the first of its documents in keep order, as in keep.py. Only its source and its length
count here, so ids are read only where the keep order asks for them before it has asked for both of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from dataproc.dedup.group import Group
from dataproc.dedup.scoped import Holders, ids_of_documents, places_of, sources_of
from dataproc.dedup.spanning import components
from dataproc.documents import rows_of
from dataproc.native import I64


@dataclass(frozen=True)
class Left:
    """What is left of each source: documents and their characters."""

    documents: I64
    characters: I64


@dataclass(frozen=True)
class _Copies:
    """The documents that are connected with another at the lowest level, in keep order; all others are always kept.

    text: the first document of the same text, numbered anew; place: of the text among the candidates, or -1.
    own, holding: the same within the source, `holding` among the elements of the holders.
    """

    source: I64
    characters: I64
    text: I64
    place: I64
    own: I64
    holding: I64


def characters_of(group: Group) -> I64:
    """The characters of every document."""
    columns = [rows_of(pair.signatures, ["characters"])["characters"].to_numpy() for pair in group.pairs]
    return np.concatenate([np.zeros(0, np.int64), *columns])


def left_in_all(group: Group, sources: Sequence[str], characters: I64) -> Left:
    """All documents: what scope none keeps."""
    return _sum(sources_of(group, sources, np.arange(group.documents)), characters, len(sources))


def survivors(
    group: Group,
    holders: Holders,
    forest_N2: I64,
    characters: I64,
    *,
    levels: int,
    sources: Sequence[str],
    keep: Sequence[str],
) -> Iterator[tuple[Left, Left]]:
    """For each level from 1 on: what scope local keeps of each source, and what scope global does."""
    candidates = len(group.candidates())
    copies = _copies(group, holders, forest_N2, characters, sources, keep)
    everything = left_in_all(group, sources, characters)
    for level in range(1, levels + 1):
        component = components(forest_N2, level)
        local = np.where(copies.holding >= 0, component[copies.holding], len(component) + copies.own)
        all_together = np.where(copies.place >= 0, component[copies.place], candidates + copies.text)
        yield _without(everything, copies, local), _without(everything, copies, all_together)


def _without(everything: Left, copies: _Copies, component: I64) -> Left:
    """What is left if each component keeps its first."""
    removed = np.ones(len(component), np.bool_)
    removed[np.unique(component, return_index=True)[1]] = False
    lost = _sum(copies.source[removed], copies.characters[removed], len(everything.documents))
    return Left(everything.documents - lost.documents, everything.characters - lost.characters)


def _sum(source: I64, characters: I64, sources: int) -> Left:
    summed = np.zeros(sources, np.int64)
    np.add.at(summed, source, characters)
    return Left(np.bincount(source, minlength=sources), summed)


def _copies(
    group: Group, holders: Holders, forest_N2: I64, characters: I64, sources: Sequence[str], keep: Sequence[str]
) -> _Copies:
    candidates, firsts = group.candidates(), group.firsts()
    component = np.arange(group.documents)
    component[candidates] = candidates[components(forest_N2, 1)[: len(candidates)]]
    component = component[firsts]
    found = np.flatnonzero((np.bincount(component, minlength=group.documents) > 1)[component])
    source = sources_of(group, sources, found)
    found = found[_in_order(group, found, source, characters[found], keep)]
    source, first = sources_of(group, sources, found), firsts[found]
    place = places_of(candidates, first)
    _, text = np.unique(first, return_inverse=True)
    _, own = np.unique(np.stack([first, source]), axis=1, return_inverse=True)
    return _Copies(source, characters[found], text, place, own, holders.element(place, source))


def _in_order(group: Group, documents: I64, source: I64, characters: I64, keep: Sequence[str]) -> I64:
    """The documents in keep order."""
    keys = {"source_order": pl.Series(source), "longest": pl.Series(-characters)}
    asked = list(keep[: keep.index("id")])
    if len(asked) < len(keys):
        keys["id"] = pl.Series(ids_of_documents(group, documents).tolist(), dtype=pl.String)
        asked.append("id")
    return pl.DataFrame(keys).with_row_index("row").sort(asked)["row"].to_numpy().astype(np.int64)
