"""Shards of documents → the Parquet files of a dataset, some shards to a file.

Files have what the Hub's viewer and storage like: small row groups, a page index, and cuts that depend on the content,
so that of a dataset that changed a little, little is uploaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dataproc import licences
from dataproc.documents import BATCH_ROWS, batches, picked, rows_of
from dataproc.export.members import members
from manifest.export import listed
from manifest.record import Model, Shard

GROUP_BYTES = 32_000_000


@dataclass(frozen=True)
class Part:
    """A file to be written. folder, split: where it belongs. shards: whose documents it takes, in order.

    tokens: the token shards of its stream, where only the documents that they list are taken. source: the one whose
    documents are taken; None: all.
    """

    folder: str
    split: str
    shards: tuple[Path, ...]
    tokens: tuple[Path, ...] = ()
    source: str | None = None


class Written(Model):
    """A file that was written, if any document was found. memory_bytes: of its rows, as Arrow holds them.

    sources, licences: documents of each source, and that name each licence.
    """

    file: Shard | None
    rows: int
    text_bytes: int
    memory_bytes: int
    sources: dict[str, int]
    licences: dict[str, int]


def write_part(numbered: tuple[int, Part], *, schema: pa.Schema, directory: Path) -> Written:
    """One task: writes `<number>.parquet` into `directory`."""
    number, part = numbered
    path = directory / f"{number:06d}.parquet"
    aside = path.with_suffix(".tmp")
    rows = text_bytes = memory_bytes = 0
    sources: Counter[str] = Counter()
    named: Counter[str] = Counter()
    with _writer(aside, schema) as writer:
        for table in _groups(_documents(part, schema)):
            writer.write_table(table, row_group_size=table.num_rows)
            rows += table.num_rows
            memory_bytes += table.nbytes
            text_bytes += int(pc.sum(pc.binary_length(table["text"])).as_py() or 0)
            sources.update(_counts(table))
            named = licences.capped(named + licences.named(table["meta"]))
    if not rows:
        aside.unlink()
        return Written(file=None, rows=0, text_bytes=0, memory_bytes=0, sources={}, licences={})
    aside.replace(path)
    return Written(
        file=listed(directory, path.name, rows),
        rows=rows,
        text_bytes=text_bytes,
        memory_bytes=memory_bytes,
        sources=sources,
        licences=named,
    )


def _counts(table: pa.Table) -> dict[str, int]:
    """The documents of each source."""
    return {row["values"]: row["counts"] for row in pc.value_counts(table["source"]).to_pylist()}


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    plain = [field.name for field in schema if field.name not in ("text", "meta")]
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=["source"],
        write_statistics=plain,  # of texts they would copy the longest
        write_page_index=True,
        write_page_checksum=True,
        use_content_defined_chunking=True,
    )


def _documents(part: Part, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The documents of a part, with the columns of the dataset. Raises CorruptArtifact."""
    for shard in part.shards:
        if part.tokens:
            found = picked(shard, None, members(rows_of(shard, ["id"])["id"], part.tokens))
        else:
            found = batches(shard)
        for batch in found:
            if part.source is not None:
                batch = batch.filter(pc.equal(batch["source"], part.source))
            yield _aligned(batch, schema)


def _aligned(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the columns of `schema`; those that it lacks are null."""
    assert set(batch.schema.names) <= set(schema.names), f"{batch.schema.names} are more than {schema.names}"
    columns = [
        batch[field.name].cast(field.type) if field.name in batch.schema.names else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _groups(found: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches, put together to the size of a row group."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in found:
        if batch.num_rows:
            waiting.append(batch)
            rows += batch.num_rows
            size += batch.nbytes
        if rows >= BATCH_ROWS or size >= GROUP_BYTES:
            yield pa.Table.from_batches(waiting)
            waiting, rows, size = [], 0, 0
    if waiting:
        yield pa.Table.from_batches(waiting)


def schema_of(shards: Sequence[Path]) -> pa.Schema:
    """The columns of all of these shards together."""
    return pa.unify_schemas([pq.read_schema(shard).remove_metadata() for shard in shards])
