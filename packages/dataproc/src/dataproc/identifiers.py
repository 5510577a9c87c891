"""Ids are unique within a source.

Where the recipe names an id field, an id that comes twice is an error. Where ids are made from content, equal documents
have equal ids: the second copy becomes `<id>.2`, the third `<id>.3`, in order of the raw files.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

import polars as pl
import pyarrow as pa

from dataproc.dedup.cleaning import rows_of
from dataproc.documents import DOCUMENTS, ShardWriter, batches
from dataproc.recipe import Source
from dataproc.stage import Draft
from manifest.errors import DataError
from manifest.record import Shard


def content_ids(name: str, texts: pa.LargeStringArray) -> pa.StringArray:
    """`content_id` of each text of a source, without making strings of the texts."""
    rows = rows_of(texts)
    data, ends = rows.data.data, rows.offsets.tolist()
    hashes = (hashlib.blake2b(data[a:b], digest_size=16).hexdigest() for a, b in itertools.pairwise(ends))
    return pa.array([f"{name}/{content}" for content in hashes], pa.string())


def unique_ids(name: str, source: Source, shards: Sequence[Shard], draft: Draft) -> tuple[Shard, ...]:
    """The shards of a source with ids made unique. Raises DataError for a repeated id of an id field."""
    documents = [shard for shard in shards if shard.path.startswith("documents")]
    if not documents:
        return tuple(shards)
    repeated = _repeated(documents, draft)
    if repeated.height == 0:
        return tuple(shards)
    if source.id is not None:
        examples = ", ".join(repr(i.removeprefix(f"{name}/")) for i in repeated["id"].unique(maintain_order=True)[:3])
        raise DataError(
            f"source {name!r}: {repeated['id'].n_unique():,} ids occur more than once, such as {examples}; field "
            f"{source.id!r} must name each document once. Correct the files, or leave 'id' out of the recipe: then ids "
            "are made from the content"
        )
    changed = set(repeated.filter(pl.col("copy") > 1)["shard"])
    renamed = {path: _rename(path, repeated.filter(pl.col("shard") == path), draft) for path in sorted(changed)}
    return tuple(s for shard in shards for s in renamed.get(shard.path, (shard,)))


def _repeated(shards: Sequence[Shard], draft: Draft) -> pl.DataFrame:
    """The rows whose id occurs before or after: shard, row, id, copy (1, 2, …)."""
    frames = [
        pl.scan_parquet(draft.path / shard.path)
        .select("id")
        .with_row_index("row")
        .with_columns(shard=pl.lit(shard.path))
        for shard in sorted(shards, key=lambda s: s.path)
    ]
    table = pl.concat(frames)
    twice = table.group_by("id").len().filter(pl.col("len") > 1).select("id").collect(engine="streaming")
    if twice.height == 0:
        return pl.DataFrame(schema={"shard": pl.String, "row": pl.UInt32, "id": pl.String, "copy": pl.UInt32})
    rows = table.join(twice.lazy(), on="id", how="semi").collect().sort("shard", "row")
    return rows.with_columns((pl.int_range(pl.len(), dtype=pl.UInt32).over("id") + 1).alias("copy"))


def _rename(path: str, rows: pl.DataFrame, draft: Draft) -> tuple[Shard, ...]:
    """Writes a shard anew, as `documents-…-ids-…`, with the copies' ids."""
    new = {row: f"{identifier}.{copy}" for row, identifier, copy in rows.select("row", "id", "copy").rows() if copy > 1}
    writer = ShardWriter(draft.path, path.removesuffix(".parquet") + "-ids", DOCUMENTS)
    start = 0
    for batch in batches(draft.path / path):
        ids = batch["id"].to_pylist()
        ids = [new.get(start + row, identifier) for row, identifier in enumerate(ids)]
        writer.write(batch.set_column(0, "id", pa.array(ids, pa.string())))
        start += batch.num_rows
    return writer.close()
