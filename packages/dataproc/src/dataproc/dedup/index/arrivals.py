"""Artifacts that arrive → which of their documents are new to an index, and which text each of them has.

in:  documents, deduped or signatures artifacts       out: Arrivals

A document is left out if its id is there already with the same text (counted as `ignored`; with another text it is
refused), or if it falls under a text tombstone of the index (`tombstoned`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup import sign
from dataproc.dedup.group import ShardPair, shard_pairs
from dataproc.dedup.identical import identical
from dataproc.dedup.index.known import documents_by_id, documents_of, texts_by_hash
from dataproc.dedup.index.state import Index
from dataproc.dedup.near import sets_of_rows
from dataproc.dedup.stones import Texts, struck
from dataproc.documents import rows_of
from dataproc.stage import Draft, shard_files
from dataproc.workers import Workers
from manifest.artifact import Opened, open_artifact, resolve
from manifest.errors import DataError, RecipeError, WrongArtifact
from manifest.identity import hash64, short
from manifest.record import Model

I64 = NDArray[np.int64]
SHOWN = 3


@dataclass(frozen=True)
class Arrivals:
    """Documents by their place in `pairs`, of which `kept` are new to the index.

    text: the number of each one's text, -1 for those that are left out; from `index.texts` on those that are new.
    first: whether it is the first of the kept ones with its text. keys: hash64 of the ids.
    """

    pairs: tuple[ShardPair, ...]
    kept: NDArray[np.bool_]
    text: I64
    first: NDArray[np.bool_]
    keys: NDArray[np.uint64]
    ignored: int
    tombstoned: int


def documents_and_signatures(item: Opened, index: Index) -> tuple[Opened, Opened | None]:
    """The documents that an artifact is or was signed from, with their signatures if it has any.

    Raises WrongArtifact for other kinds, and for signatures that were made in another way than the index's.
    """
    if item.manifest.kind in ("documents", "deduped"):
        return item, None
    if item.manifest.kind != "signatures":
        raise WrongArtifact(
            f"{item.uri} is a {item.manifest.kind}; an index takes documents, deduped or signatures artifacts"
        )
    has = {key: item.manifest.config.get(key) for key in index.settings.signing}
    if has != index.settings.signing:
        other = [
            f"{key} {has[key]} (the index: {value})"
            for key, value in index.settings.signing.items()
            if has[key] != value
        ]
        raise WrongArtifact(
            f"{item.uri} was signed with {', '.join(other)}; give the documents that it was made from, which are then "
            "signed as the index needs it"
        )
    reference = item.manifest.inputs["documents"]
    documents = open_artifact(resolve(item.uri, reference.uri), reference.kind)
    if documents.manifest.id != reference.id:
        raise WrongArtifact(
            f"{documents.uri} is not what {item.uri} was made from ({short(reference.id)}); sign it again"
        )
    return documents, item


def arriving_shards(inputs: Sequence[Opened], index: Index, *, workers: Workers, draft: Draft) -> tuple[ShardPair, ...]:
    """The shards of all inputs, with their signatures, which are made where there are none."""
    sources = []
    for number, item in enumerate(inputs):
        documents, signatures = documents_and_signatures(item, index)
        name = documents.manifest.name
        if name not in index.settings.sources:
            raise RecipeError(
                f"{documents.uri} is of source {name!r}; the index knows {', '.join(index.settings.sources)}, which is "
                "the order that decides who survives. Make another index with a recipe that lists the source"
            )
        shards = shard_files(documents, "documents")
        signed = shard_files(signatures, "signatures") if signatures else _sign(shards, number, index, workers, draft)
        sources.append((name, shards, signed))
    return shard_pairs(sources)


def _sign(shards: Sequence[Path], number: int, index: Index, workers: Workers, draft: Draft) -> list[Path]:
    """Signs documents into the draft's scratch files."""
    out = draft.scratch / f"signed-{number:04d}"
    out.mkdir(exist_ok=True)
    settings = index.settings
    done = workers.map(
        partial(sign.sign, shingling=settings.shingling, permutations=settings.permutations, draft=out),
        shards,
        result=sign.Signed,
        notes=draft.notes / out.name,
        label="signatures",
    )
    return [out / signed.shards[0].path for signed in done]


class LookedUp(Model):
    """What the index says of a shard's documents, in numbers; `refused` are some ids that it has with another text."""

    refused: tuple[str, ...]
    tombstoned: int


def look_up(pairs: tuple[ShardPair, ...], index: Index, *, workers: Workers, draft: Draft) -> Arrivals:
    """Raises DataError for ids that have another text in the index, or two texts here."""
    found = workers.map(
        partial(_look_up, index=index, stones=index.stones().texts, scratch=draft.scratch),
        pairs,
        result=LookedUp,
        notes=draft.notes / "looked-up",
        label="documents that are there already",
    )
    _refuse([identifier for one in found for identifier in one.refused], f"are in {index.root} with another text")
    tables = [np.load(_file(draft.scratch, pair)) for pair in pairs]
    rows = sum(pair.rows for pair in pairs)
    keys = np.concatenate([np.zeros(0, np.uint64), *(table["keys"] for table in tables)])
    hashes_N2 = np.concatenate([np.zeros((0, 2), np.uint64), *(table["hashes"] for table in tables)])
    known_text = np.concatenate([np.zeros(0, np.int64), *(table["text"] for table in tables)])
    kept = np.concatenate([np.zeros(0, np.bool_), *(table["kept"] for table in tables)])
    kept[_repeats(pairs, kept, keys, hashes_N2)] = False
    text, first = _number_texts(kept, hashes_N2, known_text, index.texts)
    tombstoned = sum(one.tombstoned for one in found)
    return Arrivals(pairs, kept, text, first, keys, rows - int(kept.sum()) - tombstoned, tombstoned)


def _look_up(pair: ShardPair, *, index: Index, stones: tuple[str, ...], scratch: Path) -> LookedUp:
    """One task: the documents of a shard."""
    ids = rows_of(pair.signatures, ["id"])["id"].combine_chunks().cast(pa.string())
    keys = np.array([hash64(identifier) for identifier in ids.to_pylist()], np.uint64)
    hashes_N2 = sign.column_of(pair.signatures, "text_hash", "<u8", 2).astype(np.uint64)
    row, theirs = texts_by_hash(index, hashes_N2)
    known = documents_by_id(index, ids, keys)
    there = np.flatnonzero(known >= 0)
    their_text = np.full(pair.rows, -1, np.int64)
    their_text[there] = documents_of(index, known[there])["text"].to_numpy()
    same = np.zeros(pair.rows, np.bool_)
    same[row[their_text[row] == theirs]] = True
    refused = np.flatnonzero((known >= 0) & ~same)
    text = np.full(pair.rows, -1, np.int64)
    alive = ~np.isin(theirs, index.dead_texts())
    text[row[alive]] = theirs[alive]
    fallen = _under_tombstones(pair, (known < 0) & (text < 0), hashes_N2, Texts(stones, index.settings.matching))
    kept = known < 0
    kept[fallen] = False
    with _file(scratch, pair).open("wb") as file:
        np.savez(file, keys=keys, hashes=hashes_N2, text=text, kept=kept)
    return LookedUp(refused=tuple(ids.take(pa.array(refused[:SHOWN])).to_pylist()), tombstoned=len(fallen))


def _under_tombstones(pair: ShardPair, asked: NDArray[np.bool_], hashes_N2: NDArray[np.uint64], stones: Texts) -> I64:
    """Which of the rows that are asked for fall under a text tombstone."""
    rows = np.flatnonzero(asked)
    minima_ND = sign.minima_of(pair.minima)[rows] if stones.texts else np.zeros((len(rows), 0), np.uint32)
    sets_of = sets_of_rows(pair.documents, rows, stones.matching.shingling)
    stone, _ = struck(stones, hashes_N2[rows], minima_ND, sets_of)
    return rows[stone >= 0]


def _repeats(
    pairs: Sequence[ShardPair], kept: NDArray[np.bool_], keys: NDArray[np.uint64], hashes_N2: NDArray[np.uint64]
) -> I64:
    """The kept documents whose id another one before it has too, with the same text. Raises DataError for another."""
    rows = np.flatnonzero(kept)
    _, place, copies = np.unique(keys[rows], return_inverse=True, return_counts=True)
    seen: dict[str, int] = {}
    repeats, refused = [], []
    for row, identifier in named_rows(pairs, rows[copies[place] > 1]):
        first = seen.setdefault(identifier, row)
        if first != row:
            repeats.append(row)
            if (hashes_N2[first] != hashes_N2[row]).any():
                refused.append(identifier)
    _refuse(refused, "come twice in what is added, with different texts")
    return np.array(repeats, np.int64)


def named_rows(pairs: Sequence[ShardPair], rows: I64) -> list[tuple[int, str]]:
    """Some documents, ascending, with their ids."""
    found: list[tuple[int, str]] = []
    for pair in pairs:
        low, high = np.searchsorted(rows, [pair.first, pair.first + pair.rows])
        if low < high:
            ids = sign.ids_of(pair.signatures, rows[low:high] - pair.first).to_pylist()
            found += zip(rows[low:high].tolist(), ids, strict=True)
    return found


def _refuse(ids: Sequence[str], why: str) -> None:
    if ids:
        listed = ", ".join(repr(identifier) for identifier in list(dict.fromkeys(ids))[:SHOWN])
        raise DataError(
            f"ids {why}, such as {listed}; an id names one document. Give the changed documents other ids, or leave "
            "them out; nothing was added"
        )


def _number_texts(
    kept: NDArray[np.bool_], hashes_N2: NDArray[np.uint64], known_text: I64, next_text: int
) -> tuple[I64, NDArray[np.bool_]]:
    """The text of each kept document, -1 for others, and which are the first of theirs."""
    rows = np.flatnonzero(kept)
    of_text = np.arange(len(kept))
    edges = identical(hashes_N2[rows], rows)
    of_text[edges[:, 1]] = edges[:, 0]
    first = kept & (of_text == np.arange(len(kept)))
    number = known_text.copy()
    new = first & (known_text < 0)
    number[new] = next_text + np.arange(new.sum())
    text = np.where(kept, number[of_text], -1)
    return text, first


def _file(scratch: Path, pair: ShardPair) -> Path:
    return scratch / f"looked-up-{pair.first:012d}.npz"
