"""A few removed documents beside their survivors, so that a person can judge a dedup by eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from dataproc.stage import shard_files
from manifest.artifact import Opened, open_artifact, resolve
from manifest.identity import hash64


@dataclass(frozen=True)
class Sample:
    """A removed document, the document that stands for it, and why. jaccard: exact, of their shingle sets."""

    id: str
    survivor: str
    jaccard: float
    rule: str
    text: str
    survivor_text: str


def removed_samples(mixture: Opened, count: int) -> list[Sample]:
    """`count` removals of a mixture, each of another cluster: near rather than equal copies, by hash of the id."""
    stages = upstream(mixture)
    ledger = [shard for item in stages if item.manifest.kind == "ledger" for shard in shard_files(item, "ledger")]
    if not ledger:
        return []
    table = pl.concat([pl.read_parquet(shard) for shard in ledger])
    order = table.with_columns(
        pl.col("jaccard").ge(0.999).alias("equal"),
        pl.col("id").map_elements(lambda i: hash64(f"sample/{i}"), return_dtype=pl.UInt64).alias("key"),
    )
    chosen = order.sort("equal", "key").unique("cluster", keep="first", maintain_order=True).head(count)
    documents = [item for item in stages if item.manifest.kind == "documents"]
    texts = texts_of(documents, [*chosen["id"], *chosen["survivor"]])
    return [
        Sample(row["id"], row["survivor"], row["jaccard"], row["rule"], texts[row["id"]], texts[row["survivor"]])
        for row in chosen.iter_rows(named=True)
    ]


def upstream(artifact: Opened) -> list[Opened]:
    """Every artifact that an artifact was made from, each once."""
    seen: dict[str, Opened] = {}
    _walk(artifact, seen)
    return list(seen.values())


def _walk(artifact: Opened, seen: dict[str, Opened]) -> None:
    """Adds what an artifact was made from and has not been met. Many ways lead to the same documents."""
    for reference in artifact.manifest.inputs.values():
        if reference.kind != "raw" and reference.id not in seen:
            seen[reference.id] = open_artifact(resolve(artifact.uri, reference.uri))
            _walk(seen[reference.id], seen)


def texts_of(documents: Sequence[Opened], ids: Sequence[str]) -> dict[str, str]:
    """The texts of some documents, by id."""
    files = [file for item in documents for file in shard_files(item, "documents")]
    rows = pl.concat(pl.scan_parquet(file).select("id", "text") for file in files)
    return dict(rows.filter(pl.col("id").is_in(ids)).collect(engine="streaming").iter_rows())
