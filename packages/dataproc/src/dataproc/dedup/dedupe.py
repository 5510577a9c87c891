"""Documents → what is left of them for training.

in:  documents/<source>, ledger, heldout (shards with source, shard, row)      out: deduped/<source> (documents)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dataproc.dedup.cleaning import character_counts, clean_all
from dataproc.dedup.places import listed_rows, rows_by_shard
from dataproc.documents import QUICK, ShardWriter, batches, documents_schema, rows_of
from dataproc.stage import Draft, Made
from dataproc.workers import Workers
from manifest.record import Model, Shard

STAGE = "dedupe/2"


class Written(Model):
    """contaminated: documents that dedup and hold-out have left; short: those under `min_chars` that nothing else
    speaks against.
    """

    shards: tuple[Shard, ...]
    documents: int
    text_bytes: int
    short: int
    contaminated: int = 0


def dedupe(
    name: str,
    shards: Sequence[Path],
    lists: Sequence[Path],
    *,
    contaminated: Sequence[Path] | None = None,
    min_chars: int = 0,
    workers: Workers,
    draft: Draft,
) -> Made:
    """The stage: the documents of source `name` without those that `lists` name.

    contaminated: shards with id and source of more documents that go, counted apart; None counts none.
    min_chars: drops what has fewer characters when cleaned, where the stage `documents` has not.
    """
    drop = rows_by_shard(
        lists, [(name, shards)], workers=workers, scratch=draft.scratch / "dropped", label=f"what {name} loses"
    )
    written = workers.map(
        partial(_write, name=name, drop=drop, contaminated=contaminated or (), min_chars=min_chars, draft=draft.path),
        list(enumerate(shards)),
        result=Written,
        notes=draft.notes / "written",
        label=f"deduped/{name}",
    )
    counted = ("documents", "text_bytes", "short", *(() if contaminated is None else ("contaminated",)))
    summary = {key: sum(getattr(w, key) for w in written) for key in counted}
    return Made(tuple(s for w in written for s in w.shards), summary)


def _write(
    numbered: tuple[int, Path],
    *,
    name: str,
    drop: tuple[Path, ...],
    contaminated: Sequence[Path],
    min_chars: int,
    draft: Path,
) -> Written:
    """One task: a shard's rows that stay."""
    number, shard = numbered
    dropped = listed_rows(drop, number)
    writer = ShardWriter(draft, f"documents-{number:05d}", documents_schema(shard), codec=QUICK)
    ids = _ids_of(contaminated, name)
    first = documents = text_bytes = short = struck = 0
    for batch in batches(shard):
        stays = np.ones(batch.num_rows, np.bool_)
        low, high = np.searchsorted(dropped, [first, first + batch.num_rows])
        stays[dropped[low:high] - first] = False
        first += batch.num_rows
        if len(ids):
            clean = ~pc.is_in(batch["id"], value_set=ids).to_numpy(zero_copy_only=False)
            struck += int((stays & ~clean).sum())
            stays &= clean
        if min_chars:
            enough = is_long(batch["text"], min_chars)
            short += int((stays & ~enough).sum())
            stays &= enough
        kept = batch.filter(pa.array(stays))
        writer.write(kept)
        documents += kept.num_rows
        text_bytes += int(pc.sum(pc.binary_length(kept["text"])).as_py() or 0)
    return Written(shards=writer.close(), documents=documents, text_bytes=text_bytes, short=short, contaminated=struck)


def _ids_of(lists: Sequence[Path], source: str) -> pa.Array:
    """The ids of a source that lists of (id, source) hold."""
    tables = [rows_of(path, ["id", "source"]) for path in lists]
    found = [table["id"].filter(pc.equal(table["source"], source)) for table in tables]
    return pa.chunked_array(
        [pa.array([], pa.string()), *(chunk for ids in found for chunk in ids.chunks)]
    ).combine_chunks()


def is_long(texts: pa.Array, min_chars: int) -> NDArray[np.bool_]:
    """Which texts have at least `min_chars` characters when cleaned."""
    enough: NDArray[np.bool_] = character_counts(clean_all(texts)) >= min_chars
    return enough
