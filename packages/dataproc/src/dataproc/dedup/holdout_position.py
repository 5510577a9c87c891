"""Hold-out as the original SlimPajama did it: chosen from what dedup has left.

by position   Of each source the first ⌊fraction · n⌋ of its n remaining documents in order of a hash of their ids are
              held. Documents whose text is equal, byte for byte, to a held-out one (SHA-256) are excluded. Near-
              duplicates across the split are not looked for: dedup has removed what it could find.

The original shuffles twenty piles of interleaved sources with a seeded generator and takes the first 0.17 % of each; a
hash of the id gives a shuffle that does not depend on who works.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from dataproc.dedup.dedupe import is_long
from dataproc.dedup.group import mapped, save
from dataproc.dedup.holdout import Held, Placed, located, publish
from dataproc.dedup.places import Sources, listed_rows, numbered, rows_by_shard
from dataproc.documents import batches, picked
from dataproc.recipe.dedup import Holdout
from dataproc.stage import Draft, Made
from dataproc.workers import Workers
from manifest.identity import hash64
from manifest.record import Model

STAGE = "holdout-position/1"
GONE = np.uint64(2**64 - 1)
"""The key of a document that is not there any more."""


class Counted(Model):
    remaining: int


class Digests(Model):
    """Documents of a shard that are held, or are copies of such: (SHA-256, id, row)."""

    documents: tuple[tuple[str, str, int], ...]


def holdout(
    removals: Sequence[Path],
    sources: Sources,
    *,
    config: Holdout,
    min_chars: Mapping[str, int],
    workers: Workers,
    draft: Draft,
) -> Made:
    """The stage. removals: shards of ledgers; min_chars: by source, of cleaned text; 0 where all are long enough."""
    label = "hold-out"
    drop = rows_by_shard(removals, sources, workers=workers, scratch=draft.scratch / "dropped", label=label)
    shards = [
        (place, shard, min_chars[source])
        for place, ((source, _), shard) in enumerate(zip(located(sources), numbered(sources), strict=True))
    ]
    task = partial(_keys, drop=drop, scratch=draft.scratch)
    counted = workers.map(task, shards, result=Counted, notes=draft.notes / "counted", label=label)
    last = _last_keys(sources, counted, min(config.fraction, config.max_share), draft.scratch)
    held = partial(_held, scratch=draft.scratch, last=last)
    taken = workers.map(held, shards, result=Digests, notes=draft.notes / "held", label=label)
    known = draft.scratch / "held.parquet"
    digests = [(digest, identifier) for shard in taken for digest, identifier, _ in shard.documents]
    pl.DataFrame(digests, {"digest": pl.String, "heldout": pl.String}, orient="row").write_parquet(known)
    equal = partial(_copies, scratch=draft.scratch, last=last, known=known)
    copies = workers.map(equal, shards, result=Digests, notes=draft.notes / "copies", label="copies of held-out text")
    return publish(_together(sources, taken, copies), sources, workers=workers, draft=draft)


def _keys(numbered_shard: tuple[int, Path, int], *, drop: tuple[Path, ...], scratch: Path) -> Counted:
    """One task: the key of every document that is left."""
    place, shard, min_chars = numbered_shard
    keys: list[NDArray[np.uint64]] = [np.zeros(0, np.uint64)]
    for batch in batches(shard, ["id", "text"]):
        of_batch = np.array([_key(identifier) for identifier in batch["id"].to_pylist()], np.uint64)
        if min_chars:
            of_batch[~is_long(batch["text"], min_chars)] = GONE
        keys.append(of_batch)
    all_keys = np.concatenate(keys)
    all_keys[listed_rows(drop, place)] = GONE
    save(_keys_file(scratch, place), all_keys)
    return Counted(remaining=int((all_keys != GONE).sum()))


def _key(identifier: str) -> int:
    return min(hash64(f"position/{identifier}"), int(GONE) - 1)


def _last_keys(sources: Sources, counted: Sequence[Counted], fraction: float, scratch: Path) -> list[int]:
    """The largest key that is held, for every shard by its source; -1 where none is."""
    last: list[int] = []
    place = 0
    for _, shards in sources:
        places = range(place, place + len(shards))
        place += len(shards)
        count = int(fraction * sum(counted[p].remaining for p in places))
        keys = np.concatenate([np.zeros(0, np.uint64), *(mapped(_keys_file(scratch, p)) for p in places)])
        last += [int(np.partition(keys, count - 1)[count - 1]) if count else -1] * len(shards)
    return last


def _held(numbered_shard: tuple[int, Path, int], *, scratch: Path, last: Sequence[int]) -> Digests:
    """One task: the documents of a shard that are held."""
    place, shard, _ = numbered_shard
    keys = mapped(_keys_file(scratch, place)).astype(np.uint64)
    rows = np.flatnonzero(keys <= np.uint64(last[place])) if last[place] >= 0 else np.zeros(0, np.int64)
    return _digests(shard, rows, None)


def _copies(numbered_shard: tuple[int, Path, int], *, scratch: Path, last: Sequence[int], known: Path) -> Digests:
    """One task: the documents of a shard that are left, and are copies of a held-out one."""
    place, shard, _ = numbered_shard
    keys = mapped(_keys_file(scratch, place)).astype(np.uint64)
    left = keys != GONE
    if last[place] >= 0:
        left &= keys > np.uint64(last[place])
    return _digests(shard, np.flatnonzero(left), set(pl.read_parquet(known)["digest"]))


def _digests(shard: Path, rows: NDArray[np.int64], known: set[str] | None) -> Digests:
    """The SHA-256 of the texts in some rows; known: only those that are among them."""
    found: list[tuple[str, str, int]] = []
    at = 0
    for batch in picked(shard, ["id", "text"], rows):
        for identifier, text in zip(batch["id"].to_pylist(), batch["text"], strict=True):
            digest = hashlib.sha256(memoryview(text.as_buffer())).hexdigest()
            if known is None or digest in known:
                found.append((digest, identifier, int(rows[at])))
            at += 1
    return Digests(documents=tuple(found))


def _together(sources: Sources, taken: Sequence[Digests], copies: Sequence[Digests]) -> list[Held]:
    """Held documents, each with the copies that leave training for it."""
    others: dict[str, list[Placed]] = {}
    for (source, shard), of_shard in zip(located(sources), copies, strict=True):
        for digest, identifier, row in of_shard.documents:
            others.setdefault(digest, []).append(Placed(identifier, (source, shard, row)))
    return [
        Held(Placed(identifier, (source, shard, row)), tuple(others.pop(digest, ())))
        for (source, shard), of_shard in zip(located(sources), taken, strict=True)
        for digest, identifier, row in of_shard.documents
    ]


def _keys_file(scratch: Path, place: int) -> Path:
    return scratch / f"keys-{place:05d}.npy"
