"""Tombstones in a build: the documents that fall under them are dropped before anything else looks at documents.

in:  documents/<source>, signatures/<source>     out: removed/<source>: id, source, tombstone, jaccard of what goes
                                                      documents/<source>, signatures/<source> without these rows

So a build from here on is one over raw files without these records: `deduped` and everything after it have the same
digests, provided that the raw files are still read in the same tasks and make the same shards (a task of more than
256 MB of documents cuts its shards elsewhere when a record is missing). A source without such documents is as it was.

Where ids are made from content, the copies that remain of a document are numbered anew, as they would have been.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataproc import progress
from dataproc.dedup import sign
from dataproc.dedup.group import Matching
from dataproc.dedup.near import sets_of_rows
from dataproc.dedup.stones import Stones, Texts, struck
from dataproc.documents import QUICK, ShardWriter, batches, documents_schema, frame_of, rows_of
from dataproc.stage import Build, Draft, Input, Made, Planned, Request, shard_files, summary_of
from manifest.artifact import Opened
from manifest.identity import digest_of, sha256, short
from manifest.record import Model, Shard

FIND_STAGE, DROP_STAGE = "removed/1", "without/1"
REMOVED = pa.schema(
    [("id", pa.string()), ("source", pa.string()), ("tombstone", pa.string()), ("jaccard", pa.float64())]
)
CONTENT_ID = r"^(.*/[0-9a-f]{32})(?:\.(\d+))?$"  # of the first copy, and the number of a further one (identifiers.py)


@dataclass(frozen=True)
class Source:
    """A source with its signatures, which only texts need. content_ids: whether its ids are made from content."""

    name: str
    documents: Opened | Planned
    signatures: Opened | Planned | None
    content_ids: bool


class Written(Model):
    shards: tuple[Shard, ...]
    rows: int
    text_bytes: int = 0


def without(sources: Sequence[Source], stones: Stones, matching: Matching, build: Build) -> list[Source]:
    """The sources without what falls under the tombstones; those in which nothing does as they are."""
    removed = [_removed(source, stones, matching, build) for source in sources]
    found = {identifier for item in removed if isinstance(item, Opened) for identifier in _ids(item)}
    missing = [identifier for identifier in stones.documents if identifier not in found]
    if missing and not build.dry:
        progress.say(f"tombstones: {len(missing)} ids are in no source, such as {missing[0]!r}")
    return [_left(source, item, build) for source, item in zip(sources, removed, strict=True)]


def _left(source: Source, found: Opened | Planned, build: Build) -> Source:
    """The source without what was found to go."""
    if isinstance(found, Planned):
        later = Planned("documents", source.name)
        return Source(source.name, later, source.signatures and Planned("signatures", source.name), source.content_ids)
    if summary_of(found)["removed"] == 0:
        return source
    # Which documents, not which list said so: a tombstone that finds nothing here changes nothing after it.
    dropped = {"without": digest_of(sorted(_ids(found)))}
    documents = _drop(source, "documents", source.documents, found, {"source": source.name, **dropped}, build)
    if source.signatures is None:
        return Source(source.name, documents, None, source.content_ids)
    assert isinstance(source.signatures, Opened)
    config = {**source.signatures.manifest.config, **dropped}
    signatures = _drop(source, "signatures", source.signatures, found, config, build, documents)
    return Source(source.name, documents, signatures, source.content_ids)


def consequences(trains_tokenizer: bool) -> str:
    """What a plan says of tombstones."""
    if trains_tokenizer:
        return (
            "tombstones: the tokenizer is trained on the documents that are left, so if any falls under them it is "
            "another tokenizer, and every source is tokenized anew"
        )
    return "tombstones: the sources in which documents fall under them, or survive in their place, are tokenized anew"


# ---- which documents


def _removed(source: Source, stones: Stones, matching: Matching, build: Build) -> Opened | Planned:
    texts = stones.texts if source.signatures is not None else ()

    def make(draft: Draft) -> Made:
        shards = _shards(source.documents, "documents")
        signed = _shards(source.signatures, "signatures") if source.signatures else [None] * len(shards)
        done = build.workers.map(
            partial(_find, ids=frozenset(stones.documents), texts=Texts(texts, matching), draft=draft.path),
            list(enumerate(zip(shards, signed, strict=True))),
            result=Written,
            notes=draft.notes / "found",
            label=f"tombstones/{source.name}",
        )
        return Made(tuple(s for written in done for s in written.shards), {"removed": sum(w.rows for w in done)})

    inputs: dict[str, Input] = {"documents": source.documents}
    if source.signatures is not None:
        inputs["signatures"] = source.signatures
    bands = {"bands": matching.bands.count, "rows": matching.bands.rows, "threshold": matching.threshold}
    config = {"tombstones": stones.digest, **(bands if texts else {})}
    return build.make(Request("removed", source.name, FIND_STAGE, config, inputs), make)


def _find(numbered: tuple[int, tuple[Path, Path | None]], *, ids: frozenset[str], texts: Texts, draft: Path) -> Written:
    """One task: the rows of a shard that fall under a tombstone."""
    number, (documents, signatures) = numbered
    table = rows_of(documents, ["id", "source"])
    listed = np.array([identifier in ids for identifier in table["id"].to_pylist()], np.bool_)
    text, jaccard = np.full(len(listed), -1), np.ones(len(listed))
    if signatures is not None and texts.texts:
        text, jaccard = _struck(documents, signatures, texts)
    rows = np.flatnonzero(listed | (text >= 0))
    found = table.take(pa.array(rows))
    names = [
        identifier if listed[row] else f"text {short(sha256(texts.texts[text[row]].encode()))}"
        for row, identifier in zip(rows, found["id"].to_pylist(), strict=True)
    ]
    indices = np.where(listed[rows], 1.0, jaccard[rows])
    writer = ShardWriter(draft, f"removed-{number:05d}", REMOVED)
    columns = [found["id"], found["source"], pa.array(names, pa.string()), pa.array(indices)]
    writer.write(pa.table(columns, schema=REMOVED))
    return Written(shards=writer.close(), rows=len(rows))


def _struck(documents: Path, signatures: Path, texts: Texts) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    minima_ND = sign.minima_of(signatures.with_name(sign.minima_name(signatures.stem)))
    hashes_N2 = sign.column_of(signatures, "text_hash", "<u8", 2).astype(np.uint64)
    sets_of = sets_of_rows(documents, np.arange(len(minima_ND)), texts.matching.shingling)
    return struck(texts, hashes_N2, minima_ND, sets_of)


# ---- the artifacts without them


def _drop(
    source: Source,
    kind: str,
    of: Opened | Planned,
    removed: Opened,
    config: Mapping[str, Any],
    build: Build,
    documents: Opened | Planned | None = None,
) -> Opened | Planned:
    """An artifact of documents or signatures without the removed rows. documents: what the signatures are of."""

    def make(draft: Draft) -> Made:
        ids = _ids(removed)
        names = _new_ids(_shards(source.documents, "documents"), ids) if source.content_ids else {}
        dropped = draft.scratch / "dropped.parquet"
        pq.write_table(ids.unique().sort().to_frame().to_arrow(), dropped)
        write = _write_documents if kind == "documents" else _write_signatures
        done = build.workers.map(
            partial(write, dropped=dropped, names=names, draft=draft.path),
            list(enumerate(_shards(of, kind))),
            result=Written,
            notes=draft.notes / "kept",
            label=f"{kind}/{source.name} without what is removed",
        )
        summary = {**summary_of(of), "documents": sum(written.rows for written in done)}
        if kind == "documents":
            summary |= {"text_bytes": sum(written.text_bytes for written in done), "tombstoned": len(ids)}
        return Made(tuple(shard for written in done for shard in written.shards), summary)

    inputs: dict[str, Input] = {kind: of} if documents is None else {kind: of, "documents": documents}
    return build.make(Request(kind, source.name, DROP_STAGE, config, inputs), make)


def _write_documents(numbered: tuple[int, Path], *, dropped: Path, names: Mapping[str, str], draft: Path) -> Written:
    number, shard = numbered
    writer = ShardWriter(draft, f"documents-{number:05d}", documents_schema(shard), codec=QUICK)
    rows = text_bytes = 0
    ids = rows_of(dropped)["id"]
    for batch in batches(shard):
        kept = _renamed(batch.filter(_stays(batch["id"], ids)), names)
        writer.write(kept)
        rows += kept.num_rows
        text_bytes += int(pc.sum(pc.binary_length(kept["text"])).as_py() or 0)
    return Written(shards=writer.close(), rows=rows, text_bytes=text_bytes)


def _write_signatures(numbered: tuple[int, Path], *, dropped: Path, names: Mapping[str, str], draft: Path) -> Written:
    number, shard = numbered
    table = rows_of(shard)
    stays = _stays(table["id"], rows_of(dropped)["id"])
    rows = np.flatnonzero(stays.to_numpy(zero_copy_only=False))
    if not len(rows):
        return Written(shards=(), rows=0)
    stem = f"signatures-{number:05d}"
    writer = ShardWriter(draft, stem, sign.SIGNATURES, whole=True)
    for batch in table.filter(stays).to_batches():
        writer.write(_renamed(batch, names))
    minima_ND = sign.minima_of(shard.with_name(sign.minima_name(shard.stem)))
    with sign.MinimaWriter(draft / sign.minima_name(f"{stem}-00000"), len(rows), minima_ND.shape[1]) as minima:
        minima.write(minima_ND[rows])
    return Written(shards=(*writer.close(), minima.shard), rows=len(rows))


def _stays(ids: pa.Array | pa.ChunkedArray, dropped: pa.ChunkedArray) -> pa.Array:
    stays = pc.invert(pc.is_in(ids.cast(pa.large_string()), value_set=dropped.cast(pa.large_string())))
    return stays.combine_chunks() if isinstance(stays, pa.ChunkedArray) else stays


def _renamed(batch: pa.RecordBatch, names: Mapping[str, str]) -> pa.RecordBatch:
    if not names:
        return batch
    ids = [names.get(identifier, identifier) for identifier in batch["id"].to_pylist()]
    return batch.set_column(0, "id", pa.array(ids, pa.string()))


def _new_ids(shards: Sequence[Path], dropped: pl.Series) -> dict[str, str]:
    """Old id → new id of the copies that remain of documents of which a copy is dropped."""
    content, copy = pl.col("id").str.extract(CONTENT_ID, 1), pl.col("id").str.extract(CONTENT_ID, 2)
    of_dropped = dropped.to_frame("id").select(content.alias("content")).drop_nulls().unique()
    ids = frame_of(shards, pl.Schema({"id": pl.String})).with_columns(
        content.alias("content"), copy.cast(pl.Int64).fill_null(1).alias("copy")
    )
    left = ids.join(of_dropped, on="content", how="semi").filter(~pl.col("id").is_in(dropped.to_list()))
    numbered = left.sort("content", "copy").with_columns((pl.int_range(pl.len()) + 1).over("content").alias("new"))
    return {
        old: base if new == 1 else f"{base}.{new}"
        for old, base, copy_number, new in numbered.select("id", "content", "copy", "new").iter_rows()
        if new != copy_number
    }


def _ids(removed: Opened) -> pl.Series:
    return frame_of(shard_files(removed), pl.Schema({"id": pl.String}))["id"]


def _shards(item: Opened | Planned, stem: str) -> list[Path]:
    assert isinstance(item, Opened)
    return shard_files(item, stem)
