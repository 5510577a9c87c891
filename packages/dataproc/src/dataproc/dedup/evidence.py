"""What decides about pairs of candidates: the signature and the shingle set of each, by its place among the candidates.

    minima.u32             (C, permutations)
    sets.u64               distinct shingle hashes, ascending, at starts[c] : starts[c] + sizes[c]
    starts.npy, sizes.npy  (C,) i64

Each shard has a range of each file, known before a text is read (room for all its shingle positions; repeats leave a
hole at its end). So shards are written by whoever has time, in any order and however often. Documents that share no key
with another never get a set.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataproc.dedup.cleaning import clean_all
from dataproc.dedup.group import Group, ShardPair, mapped, save
from dataproc.dedup.pairs import Evidence
from dataproc.dedup.shingles import shingle_hashes, unique_sorted
from dataproc.dedup.sign import minima_of
from dataproc.documents import picked, rows_of
from dataproc.stage import Draft
from dataproc.workers import Workers
from manifest.record import Model


class Place(Model):
    """A shard's candidates, first to last among all, and where its part of `sets.u64` begins."""

    pair: ShardPair
    first: int
    last: int
    start: int


class Gathered(Model):
    """The sets of a shard, in numbers."""

    candidates: int
    shingles: int


def gather_evidence(group: Group, *, workers: Workers, draft: Draft) -> None:
    """Writes the files. Once `sizes.npy` is there, all are."""
    if (group.scratch / "sizes.npy").exists():
        return
    places = _places(group)
    workers.map(
        partial(_read, group=group), places, result=Gathered, notes=draft.notes / "evidence", label="shingle sets"
    )
    sizes = [np.zeros(0, np.int64), *(np.load(_sizes_file(group, place.pair)) for place in places)]
    starts = [place.start + np.cumsum(of) - of for place, of in zip(places, sizes[1:], strict=True)]
    save(group.scratch / "starts.npy", np.concatenate([np.zeros(0, np.int64), *starts]))
    save(group.scratch / "sizes.npy", np.concatenate(sizes))


def evidence_of(group: Group) -> Evidence:
    """All of it, mapped."""
    sizes = mapped(group.scratch / "sizes.npy")
    if not len(sizes):
        return Evidence(np.zeros((0, group.matching.permutations), np.uint32), np.zeros(0, np.uint64), sizes, sizes)
    minima = np.memmap(group.scratch / "minima.u32", np.uint32, "r", shape=(len(sizes), group.matching.permutations))
    hashes = np.memmap(group.scratch / "sets.u64", np.uint64, "r")
    return Evidence(np.asarray(minima), np.asarray(hashes), mapped(group.scratch / "starts.npy"), sizes)


def _places(group: Group) -> list[Place]:
    """Gives every shard with candidates its range, and the files their full size."""
    candidates = group.candidates()
    bounds = np.searchsorted(candidates, [*(pair.first for pair in group.pairs), group.documents])
    places: list[Place] = []
    start = 0
    for pair, first, last in zip(group.pairs, bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        if first < last:
            places.append(Place(pair=pair, first=first, last=last, start=start))
            positions = rows_of(pair.signatures, ["shingles"])["shingles"].to_numpy()
            start += int(positions[candidates[first:last] - pair.first].sum())
    for name, size in (("minima.u32", 4 * group.matching.permutations * len(candidates)), ("sets.u64", 8 * start)):
        with (group.scratch / name).open("ab") as file:  # not emptied: an earlier attempt has filled some of it
            file.truncate(size)
    return places


def _read(place: Place, *, group: Group) -> Gathered:
    """One task: the candidates of a shard."""
    rows = group.candidates()[place.first : place.last] - place.pair.first
    minima_ND = minima_of(place.pair.minima)[rows]
    _write_at(group.scratch / "minima.u32", minima_ND[0].nbytes * place.first, minima_ND)
    sizes: list[NDArray[np.int64]] = []
    end = place.start
    for batch in picked(place.pair.documents, ["text"], rows):
        sets = unique_sorted(shingle_hashes(clean_all(batch["text"]), group.matching.shingling))
        _write_at(group.scratch / "sets.u64", 8 * end, sets.hashes)
        sizes.append(np.diff(sets.offsets))
        end += len(sets.hashes)
    save(_sizes_file(group, place.pair), np.concatenate(sizes))
    return Gathered(candidates=len(rows), shingles=end - place.start)


def _write_at(path: Path, offset: int, array: NDArray[np.generic]) -> None:
    data = np.ascontiguousarray(array).view(np.uint8).reshape(-1).data
    with path.open("r+b") as file:
        while data:
            written = os.pwrite(file.fileno(), data, offset)
            data, offset = data[written:], offset + written


def _sizes_file(group: Group, pair: ShardPair) -> Path:
    return group.scratch / f"sizes-{pair.first}.npy"
