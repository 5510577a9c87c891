"""What decides about pairs: the signature and the shingle set of each document of a list, by its place in the list.

    <list>.npy                           (C,) i64, ascending: document numbers
    <list>.minima.u32                    (C, permutations)
    <list>.sets.u64                      distinct shingle hashes, ascending, at starts[c] : starts[c] + sizes[c]
    <list>.starts.npy, <list>.sizes.npy  (C,) i64

The list is `candidates`, `audited` in a build that verifies nothing, or `apart` of a ledger. Each shard has a range of
each file, known before a text is read (room for all its shingle positions; repeats leave a hole at its end). So shards
are written by whoever has time, in any order and however often. Documents that share no key with another never get a
set. What clusters were made of is left for their ledger (`leave`, `claim`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.group import CANDIDATES, PAIRS, Group, Matching, ShardPair, mapped, save
from dataproc.dedup.pairs import Evidence
from dataproc.dedup.ranges import is_long, set_parts
from dataproc.dedup.resident import counter
from dataproc.dedup.shingles import Shingling, by_size, byte_lengths, shingle_sets
from dataproc.dedup.sign import minima_of
from dataproc.documents import picked, rows_of
from dataproc.stage import Draft
from dataproc.workers import Workers
from manifest.record import Model


class Place(Model):
    """The documents of a shard, first to last of the list, and where its part of the sets begins."""

    pair: ShardPair
    first: int
    last: int
    start: int


class Gathered(Model):
    """The sets of a shard, in numbers."""

    documents: int
    shingles: int


def gather_evidence(group: Group, listing: str, *, workers: Workers, draft: Draft) -> None:
    """Writes the files of a list. Once that of the sizes is there, all are."""
    if group.file(listing, "sizes.npy").exists():
        return
    places = _places(group, listing)
    read = partial(_read, group=group, listing=listing)
    workers.map(read, places, result=Gathered, notes=draft.notes / f"{listing}-sets", label="shingle sets")
    sizes = [np.zeros(0, np.int64), *(np.load(_sizes_file(group, listing, place)) for place in places)]
    starts = [place.start + np.cumsum(of) - of for place, of in zip(places, sizes[1:], strict=True)]
    save(group.file(listing, "starts.npy"), np.concatenate([np.zeros(0, np.int64), *starts]))
    save(group.file(listing, "sizes.npy"), np.concatenate(sizes))


def evidence_of(group: Group, listing: str) -> Evidence:
    """All of it, mapped."""
    sizes = mapped(group.file(listing, "sizes.npy"))
    if not len(sizes):
        nothing = np.zeros((0, group.matching.permutations), np.uint32), np.zeros(0, np.uint64)
        return Evidence(*nothing, sizes, sizes, np.zeros(0, np.int64))
    shape = (len(sizes), group.matching.permutations)
    minima = np.memmap(group.file(listing, "minima.u32"), np.uint32, "r", shape=shape)
    file = group.file(listing, "sets.u64")
    hashes = np.asarray(np.memmap(file, np.uint64, "r")) if file.stat().st_size else np.zeros(0, np.uint64)
    starts = mapped(group.file(listing, "starts.npy"))
    return Evidence(np.asarray(minima), hashes, starts, sizes, counter(hashes))


def jaccard_of(group: Group, listing: str, documents_E2: NDArray[np.int64]) -> NDArray[np.float64]:
    """The exact Jaccard index of each pair of documents of a list, or, of candidates, of such texts as theirs."""
    return evidence_of(group, listing).jaccard(_listed_at(group, listing, documents_E2))


def are_near(group: Group, listing: str, documents_E2: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of such pairs have an index of at least the threshold."""
    return evidence_of(group, listing).reach(_listed_at(group, listing, documents_E2), group.matching.threshold)


def _listed_at(group: Group, listing: str, documents_E2: NDArray[np.int64]) -> NDArray[np.int64]:
    """The places of some documents in a list; of candidates, of the first ones with their texts."""
    if listing == CANDIDATES:
        documents_E2 = group.firsts()[documents_E2]
    listed = group.listed(listing)
    places_E2 = np.searchsorted(listed, documents_E2)
    assert (listed[places_E2] == documents_E2).all(), "a document that is not in the list"
    return places_E2


def leave(group: Group, at: Path) -> None:
    """Keeps what `jaccard_of` needs of the candidates when the draft goes, unless the disk knows no hard links.

    Links and no renames: a build that is killed here goes on with what is in the draft.
    """
    lists = [group.scratch / f"{CANDIDATES}.npy"]
    lists += [group.file(CANDIDATES, name) for name in ("minima.u32", "sets.u64", "starts.npy", "sizes.npy")]
    shutil.rmtree(at, ignore_errors=True)
    try:
        at.mkdir()
        for file in (*lists, group.firsts_file, group.scratch / PAIRS):
            (at / file.name).hardlink_to(file)
    except OSError:
        shutil.rmtree(at, ignore_errors=True)


def claim(at: Path, matching: Matching, *, draft: Draft) -> Group | None:
    """What was left at a place, now in this draft, or what an earlier attempt of it claimed; None if there is nothing.

    Of two that claim it at once one gets it.
    """
    own = draft.scratch / "left"
    with suppress(OSError):
        at.rename(own)
    if not (own / PAIRS).is_file():
        return None
    rows = sum(pair.rows for pair in Group(own, 0, matching, 1).pairs)
    return Group(own, rows, matching, 1)


def _places(group: Group, listing: str) -> list[Place]:
    """Gives every shard with documents of the list its range, and the files their full size."""
    documents = group.listed(listing)
    bounds = np.searchsorted(documents, [*(pair.first for pair in group.pairs), group.documents])
    places: list[Place] = []
    start = 0
    for pair, first, last in zip(group.pairs, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if first < last:
            places.append(Place(pair=pair, first=first, last=last, start=start))
            positions = rows_of(pair.signatures, ["shingles"])["shingles"].to_numpy()
            start += int(positions[documents[first:last] - pair.first].sum())
    for name, size in (("minima.u32", 4 * group.matching.permutations * len(documents)), ("sets.u64", 8 * start)):
        with group.file(listing, name).open("ab") as file:  # not emptied: an earlier attempt has filled some of it
            file.truncate(size)
    return places


def _read(place: Place, *, group: Group, listing: str) -> Gathered:
    """One task: the documents of a shard."""
    rows = group.listed(listing)[place.first : place.last] - place.pair.first
    minima_ND = minima_of(place.pair.minima)[rows]
    _write_at(group.file(listing, "minima.u32"), minima_ND[0].nbytes * place.first, minima_ND)
    sizes: list[NDArray[np.int64]] = []
    end = place.start
    for texts in _texts_by_size(place.pair.documents, rows):
        sizes.append(_write_sets(group.file(listing, "sets.u64"), end, texts, group.matching.shingling))
        end += int(sizes[-1].sum())
    save(_sizes_file(group, listing, place), np.concatenate(sizes))
    return Gathered(documents=len(rows), shingles=end - place.start)


def _texts_by_size(documents: Path, rows: NDArray[np.int64]) -> Iterator[pa.Array]:
    for batch in picked(documents, ["text"], rows):
        for first, end in by_size(byte_lengths(batch["text"])):
            yield batch["text"].slice(first, end - first)


def _write_sets(path: Path, at: int, texts: pa.Array, shingling: Shingling) -> NDArray[np.int64]:
    """Writes the sets of some texts from the `at`-th hash of a file on; returns their sizes."""
    if is_long(texts):
        size = 0
        for part in set_parts(texts, shingling):
            _write_at(path, 8 * (at + size), part)
            size += len(part)
        return np.array([size])
    sets = shingle_sets(texts, shingling)
    _write_at(path, 8 * at, sets.hashes)
    return np.diff(sets.offsets)


def _write_at(path: Path, offset: int, array: NDArray[np.generic]) -> None:
    data = np.ascontiguousarray(array).view(np.uint8).reshape(-1).data
    with path.open("r+b") as file:
        while data:
            written = os.pwrite(file.fileno(), data, offset)
            data, offset = data[written:], offset + written


def _sizes_file(group: Group, listing: str, place: Place) -> Path:
    return group.file(listing, f"sizes-{place.first}.npy")
