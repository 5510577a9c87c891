"""New documents → the edges between their texts and those of the index, and the nearest document of each.

in:  Arrivals       out: edges (a maximum spanning forest), and for each text that arrives the nearest old ones

New against old: band keys are looked up in the tables of all batches. New against new: as in a build.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.candidates import find_candidates
from dataproc.dedup.evidence import evidence_of, gather_evidence
from dataproc.dedup.group import CANDIDATES, ShardPair, make_group, save
from dataproc.dedup.index.arrivals import Arrivals
from dataproc.dedup.index.graph import Edges, Reached, joined, reach, spanning
from dataproc.dedup.index.known import KnownTexts
from dataproc.dedup.index.state import Index
from dataproc.dedup.links import edges_of, link_all
from dataproc.dedup.near import near, sets_of_rows
from dataproc.dedup.sign import minima_of
from dataproc.stage import Draft
from dataproc.workers import Workers
from manifest.record import Model

I64 = NDArray[np.int64]
ROWS = 2048  # whose pairs are held at a time


class Searched(Model):
    """How many hot buckets of old texts were compared in part."""

    cut: int


@dataclass(frozen=True)
class Links:
    """What new texts are near to.

    old: the components of the old texts that they touch. edges: those that join what was apart. nearest: (new text,
    one of the old texts of the largest Jaccard index, that index). capped_buckets: of which not all was compared.
    """

    old: Reached
    edges: Edges
    nearest: Edges
    capped_buckets: int


def search(index: Index, arrivals: Arrivals, *, workers: Workers, draft: Draft) -> Links:
    """Everything that connects what arrives, with itself and with the index."""
    save(draft.scratch / "arrived-text.npy", arrivals.text)
    save(draft.scratch / "arrived-first.npy", arrivals.first)
    done = workers.map(
        partial(_search, index=index, scratch=draft.scratch),
        arrivals.pairs,
        result=Searched,
        notes=draft.notes / "searched",
        label="near-duplicates in the index",
    )
    tables = [np.load(_file(draft.scratch, pair)) for pair in arrivals.pairs]
    with_old = joined([_edges(table, "edges") for table in tables])
    nearest = joined([_edges(table, "nearest") for table in tables])
    among_new, capped = _among_new(index, arrivals, workers, draft)
    known = arrivals.text[(arrivals.text >= 0) & (arrivals.text < index.texts)]
    old = reach(index, np.union1d(with_old.b, known), index.dead_texts())
    return Links(old, spanning(joined([with_old, among_new]), old), nearest, capped + sum(one.cut for one in done))


def _search(pair: ShardPair, *, index: Index, scratch: Path) -> Searched:
    """One task: the texts that a shard brings first, against the index."""
    shard = slice(pair.first, pair.first + pair.rows)
    text = np.load(scratch / "arrived-text.npy", mmap_mode="r")[shard]
    rows = np.flatnonzero(np.load(scratch / "arrived-first.npy", mmap_mode="r")[shard])
    known, matching = KnownTexts.of(index), index.settings.matching
    edges, nearest, cut = [], [], 0
    for start in range(0, len(rows), ROWS):
        some = rows[start : start + ROWS]
        sets_of = sets_of_rows(pair.documents, some, matching.shingling)
        found = near(known, matching, minima_of(pair.minima)[some], sets_of)
        pairs = Edges(text[some][found.query], found.text, found.jaccard)
        edges.append(spanning(pairs.at(pairs.a != pairs.b)))
        nearest.append(pairs.at(pairs.jaccard == _largest(found.query, found.jaccard)))
        cut += found.cut
    all_edges, all_nearest = spanning(joined(edges)), joined(nearest)
    with _file(scratch, pair).open("wb") as file:
        np.savez(
            file,
            edges=all_edges.ends_E2,
            edges_jaccard=all_edges.jaccard,
            nearest=all_nearest.ends_E2,
            nearest_jaccard=all_nearest.jaccard,
        )
    return Searched(cut=cut)


def _largest(query: I64, jaccard: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each pair the largest index of its query."""
    largest = np.zeros(int(query.max(initial=-1)) + 1)
    np.maximum.at(largest, query, jaccard)
    return largest[query]


def _among_new(index: Index, arrivals: Arrivals, workers: Workers, draft: Draft) -> tuple[Edges, int]:
    """The edges between new texts, as a build finds them, with exact indices; and how many buckets were capped."""
    rows = len(arrivals.text)
    new = arrivals.first & (arrivals.text >= index.texts)
    group = make_group(arrivals.pairs, index.settings.matching, workers=workers, draft=draft)
    save(group.firsts_file, np.where(new, np.arange(rows), -1))  # all others take no part
    find_candidates(group, workers=workers, draft=draft)
    gather_evidence(group, CANDIDATES, workers=workers, draft=draft)
    _, linked = link_all(group, workers=workers, draft=draft)
    places_E2 = edges_of(group)
    texts = arrivals.text[group.candidates()[places_E2]]
    return Edges(texts[:, 1], texts[:, 0], evidence_of(group, CANDIDATES).jaccard(places_E2)), linked.capped_buckets


def _edges(table: Mapping[str, NDArray[Any]], name: str) -> Edges:
    return Edges(table[name][:, 0], table[name][:, 1], table[f"{name}_jaccard"])


def _file(scratch: Path, pair: ShardPair) -> Path:
    return scratch / f"searched-{pair.first:012d}.npz"
