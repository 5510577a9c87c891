"""Buckets → the comparisons that each scope takes from them, so that one pass serves global and local dedup.

A candidate stands for all documents of its text. Global dedup compares the candidates of a bucket; local dedup, for
each source, those that the source holds. What both do is done once:

    of each source    its part of the bucket: a link counts for the source and for all
    of all            pairs of candidates that no source holds both of: a link counts for all

In a bucket over the cap, who is compared depends on the scope. There, the whole bucket is gone through for all and each
source's part for that source alone, in order of id, as in links.py.

The elements that links join are the candidates, by place, for global dedup; and behind them, for local dedup, one per
candidate and source that holds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.buckets import Buckets
from dataproc.dedup.group import Group, mapped, save
from dataproc.dedup.sign import ids_of

FOR_BOTH, FOR_ONE, ACROSS = 0, 1, 2
_WIDTH = 2**20  # more sources than anybody has


class Holders(NamedTuple):
    """Who holds a candidate's text: candidate c is held by sources[starts[c] : starts[c + 1]], ascending, and
    `firsts` are the first documents of the text there.
    """

    starts: NDArray[np.int64]
    sources: NDArray[np.int64]
    firsts: NDArray[np.int64]

    @property
    def elements(self) -> int:
        """How many elements there are for links to join."""
        return len(self.starts) - 1 + len(self.sources)

    def element(self, place: NDArray[np.int64], source: NDArray[np.int64]) -> NDArray[np.int64]:
        """The elements of candidates in sources that hold them; -1 where the place is."""
        holder = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        found = np.searchsorted(holder * _WIDTH + self.sources, place * _WIDTH + source)
        return np.where(place >= 0, len(self.starts) - 1 + found, -1)


class Scoped(NamedTuple):
    """Buckets as they are compared: candidates (by place), and the element that each is there.

    kinds: FOR_BOTH links the elements and the candidates; FOR_ONE the elements alone; ACROSS too, but only pairs that
    no source holds both of.
    """

    members: NDArray[np.int64]
    elements: NDArray[np.int64]
    bounds: NDArray[np.int64]
    kinds: NDArray[np.int8]


def find_holders(group: Group, sources: Sequence[str]) -> Holders:
    """Writes and returns the holders of all candidates. sources: by number."""
    candidates = group.candidates()
    place = places_of(candidates, group.firsts())
    documents = np.flatnonzero(place >= 0)
    documents = documents[np.argsort(place[documents], kind="stable")]  # by place, then by source, as documents are
    place, source = place[documents], sources_of(group, sources, documents)
    first = np.ones(len(documents), np.bool_)
    first[1:] = (place[1:] != place[:-1]) | (source[1:] != source[:-1])
    starts = np.searchsorted(place[first], np.arange(len(candidates) + 1))
    found = Holders(starts, source[first], documents[first])
    for name, array in zip(Holders._fields, found, strict=True):
        save(group.scratch / f"held-{name}.npy", array)
    return found


def holders_of(group: Group) -> Holders:
    """What `find_holders` wrote, mapped."""
    return Holders(*(mapped(group.scratch / f"held-{name}.npy") for name in Holders._fields))


def sources_of(group: Group, sources: Sequence[str], documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """The number of each document's source."""
    numbers = {name: number for number, name in enumerate(sources)}
    of_shard = np.array([numbers[pair.source] for pair in group.pairs], np.int64)
    return of_shard[np.searchsorted([pair.first for pair in group.pairs], documents, side="right") - 1]


def scoped(group: Group, found: Buckets, holders: Holders, cap: int) -> Scoped:
    """The buckets of a partition, for all scopes."""
    places = np.searchsorted(group.candidates(), found.members)
    bucket = np.repeat(np.arange(len(found.sizes)), found.sizes)
    over = found.sizes > cap
    own = _of_each_source(places, bucket, over, holders)
    several = np.bincount(np.unique(own.part) // _WIDTH, minlength=len(over)) > 1
    whole = np.flatnonzero((several | over)[bucket])
    rows = _Rows(
        part=np.concatenate([own.part, len(over) * _WIDTH + bucket[whole]]),
        member=np.concatenate([own.member, places[whole]]),
        element=np.concatenate([own.element, places[whole]]),
        document=np.concatenate([own.document, found.members[whole]]),
        kind=np.concatenate([own.kind, np.where(over[bucket[whole]], FOR_ONE, ACROSS)]),
    )
    return _cut(group, rows, cap)


class _Rows(NamedTuple):
    """Members of parts, which are numbered in ascending order. document: whose id orders a part over the cap."""

    part: NDArray[np.int64]
    member: NDArray[np.int64]
    element: NDArray[np.int64]
    document: NDArray[np.int64]
    kind: NDArray[np.int64]


def beyond_cap(found: Scoped, cap: int) -> NDArray[np.int64]:
    """The elements that are compared only with the first `cap` of their part, ascending."""
    sizes = np.diff(found.bounds)
    rank = np.arange(len(found.elements)) - np.repeat(found.bounds[:-1], sizes)
    return np.unique(found.elements[rank >= cap])


def _of_each_source(
    places: NDArray[np.int64], bucket: NDArray[np.int64], over: NDArray[np.bool_], holders: Holders
) -> _Rows:
    """A row for each member and source that holds it; a part is what a source has of a bucket."""
    counts = holders.starts[places + 1] - holders.starts[places]
    member = np.repeat(np.arange(len(places)), counts)
    holding = holders.starts[places][member] + np.arange(len(member)) - np.repeat(np.cumsum(counts) - counts, counts)
    part = bucket[member] * _WIDTH + holders.sources[holding]
    order = np.argsort(part, kind="stable")
    member, holding = member[order], holding[order]
    return _Rows(
        part=part[order],
        member=places[member],
        element=len(holders.starts) - 1 + holding,
        document=holders.firsts[holding],
        kind=np.where(over[bucket[member]], FOR_ONE, FOR_BOTH),
    )


def _cut(group: Group, rows: _Rows, cap: int) -> Scoped:
    """Parts of two members or more; those over the cap in order of id, which decides who is compared."""
    starts = np.flatnonzero(np.diff(rows.part, prepend=-1))
    sizes = np.diff(starts, append=len(rows.part))
    kept = np.flatnonzero(np.repeat(sizes > 1, sizes))
    starts, sizes = starts[sizes > 1], sizes[sizes > 1]
    bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    for part in np.flatnonzero(sizes > cap):
        of_part = slice(*bounds[part : part + 2])
        ids = ids_of_documents(group, rows.document[kept[of_part]])
        kept[of_part] = kept[of_part][np.argsort(ids, kind="stable")]
    return Scoped(rows.member[kept], rows.element[kept], bounds, rows.kind[starts].astype(np.int8))


def ids_of_documents(group: Group, documents: NDArray[np.int64]) -> NDArray[np.object_]:
    """The ids of some documents, in any order."""
    found = np.empty(len(documents), object)
    for pair in group.pairs:
        here = np.flatnonzero((documents >= pair.first) & (documents < pair.first + pair.rows))
        if len(here):
            found[here] = ids_of(pair.signatures, documents[here] - pair.first).to_pylist()
    return found


def places_of(candidates: NDArray[np.int64], documents: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each document among the candidates, -1 if it is none."""
    place = np.searchsorted(candidates, documents)
    found = np.append(candidates, -1)[place] == documents
    return np.where(found, place, -1)
