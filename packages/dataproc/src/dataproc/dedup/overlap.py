"""Global clusters → what the sources share: source × source, in documents and tokens.

in:  clusters/global, signatures/<source>…
out: a record with, for each source A and each source B,
     shared   the documents of A that have another one in B in their cluster
     lost     the documents of A that global dedup removes for a survivor in B, in the stated keep order

Tokens are estimated from characters. A cluster lies whole in one shard, so memory is bounded by the shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from dataproc.dedup.keep import ranked
from dataproc.dedup.reached import Found, Reached, Source, keep_order, opened, reach, sources_of
from dataproc.dedup.tokens import TokenRate, token_rates
from dataproc.documents import frame_of, rows_of
from dataproc.stage import shard_files
from manifest.errors import InputError
from manifest.record import Model

GLOBAL_ADVICE = (
    "overlap reads clusters/global, which a build has if dedup.scope is global or if holdout.fraction is above 0; set "
    "one of these, run dataproc build --until clusters, and give what it prints"
)


class Share(Model):
    """Of a source: documents, their share of it, and their tokens, estimated."""

    documents: int
    share: float
    tokens: int


class Overlap(Model):
    """shared[A][B], lost[A][B]: see the module's docstring; elsewhere[A]: the documents of A that have another one in
    any other source. total: all of each source, in keep order. clusters: the id of what this is of.
    """

    sources: tuple[str, ...]
    keep: tuple[str, ...]
    threshold: float
    bands: tuple[int, int]
    verify: str
    unit: str
    ngram: int
    clusters: str
    tokens: dict[str, TokenRate]
    total: dict[str, Share]
    elsewhere: dict[str, Share]
    shared: dict[str, dict[str, Share]]
    lost: dict[str, dict[str, Share]]

    @property
    def criterion(self) -> str:
        """What makes two documents near-duplicates, in words."""
        shingles = f"{self.unit} {self.ngram}-grams"
        if self.verify == "exact":
            return f"Jaccard ≥ {self.threshold:g} of {shingles}"
        return f"a shared band of {self.bands[0]} × {self.bands[1]} over {shingles}, unchecked"


def overlap(artifacts: Sequence[str], *, keep: tuple[str, ...] | None = None) -> Overlap:
    """keep: given, or the build's. Raises InputError if the artifacts do not lead to one clusters/global."""
    reached = reach(artifacts)
    clusters = _clusters(reached)
    sources = sources_of(reached)
    names = [source.name for source in sources]
    order = keep or keep_order(reached)
    characters = [_characters(source) for source in sources]
    rates = token_rates(sources, characters)
    count = _Counted(_pairs(shard_files(opened(clusters), "clusters"), order, names))
    documents = {source.name: int(source.signatures.summary["documents"]) for source in sources}

    def share(kind: str, a: str, b: str) -> Share:
        some, length = count.of(kind, a, b)
        return Share(documents=some, share=round(some / max(1, documents[a]), 6), tokens=rates[a].tokens(length))

    config = clusters.manifest.config
    return Overlap(
        sources=tuple(names),
        keep=order,
        threshold=config["threshold"],
        bands=(config["bands"], config["rows"]),
        verify=config["verify"],
        unit=config["unit"],
        ngram=config["ngram"],
        clusters=clusters.manifest.id,
        tokens=rates,
        total={
            name: Share(documents=documents[name], share=1.0, tokens=rates[name].tokens(length))
            for name, length in zip(names, characters, strict=True)
        },
        elsewhere={a: share("elsewhere", a, "") for a in names},
        shared={a: {b: share("shared", a, b) for b in names} for a in names},
        lost={a: {b: share("lost", a, b) for b in names} for a in names},
    )


def _clusters(reached: Reached) -> Found:
    """The one clusters/global. Raises InputError."""
    reached.require("clusters", GLOBAL_ADVICE)
    found = [item for item in reached.of_kind("clusters") if item.manifest.name == "global"]
    if not found:
        local = reached.of_kind("clusters")[0]
        raise InputError(
            f"{reached.named[0].title} has clusters of single sources only, such as {local.uri}; {GLOBAL_ADVICE}"
        )
    if len(found) > 1:
        raise InputError(
            f"the artifacts were made from two different clusters/global, {found[0].uri} and {found[1].uri}; give "
            "artifacts of one build"
        )
    return found[0]


def _characters(source: Source) -> int:
    shards = shard_files(opened(source.signatures), "signatures")
    return sum(int(rows_of(shard, ["characters"])["characters"].to_numpy().sum()) for shard in shards)


MEMBERS = pl.Schema({"id": pl.String, "cluster": pl.String, "source": pl.String, "characters": pl.Int64})


class _Counted:
    """Documents and characters by (kind, source, other source), of rows with these columns."""

    def __init__(self, tables: Iterator[pl.DataFrame]) -> None:
        key = ["kind", "source", "other"]
        summed = pl.concat(tables).group_by(key).agg(pl.col("documents", "characters").sum())
        self._counts = {row[:3]: (int(row[3]), int(row[4])) for row in summed.iter_rows()}

    def of(self, kind: str, source: str, other: str) -> tuple[int, int]:
        return self._counts.get((kind, source, other), (0, 0))


def _pairs(shards: Sequence[Path], keep: Sequence[str], sources: Sequence[str]) -> Iterator[pl.DataFrame]:
    """The counts; the first table is an empty one."""
    columns = {
        "kind": pl.String,
        "source": pl.String,
        "other": pl.String,
        "documents": pl.Int64,
        "characters": pl.Int64,
    }
    yield pl.DataFrame(schema=columns)
    members = frame_of(shards, MEMBERS)
    part = members.group_by("cluster", "source").agg(
        pl.len().cast(pl.Int64).alias("documents"), pl.col("characters").sum()
    )
    other = part.select("cluster", pl.col("source").alias("other"), pl.col("documents").alias("there"))
    pairs = part.join(other, on="cluster").filter((pl.col("source") != pl.col("other")) | (pl.col("there") > 1))
    mixed = part.filter(pl.len().over("cluster") > 1)
    removed = ranked(members, keep, sources).filter(pl.col("rule") != "")
    for kind, table in (
        ("shared", pairs),
        ("elsewhere", mixed.with_columns(pl.lit("").alias("other"))),
        ("lost", removed.with_columns(pl.lit(1, pl.Int64).alias("documents")).rename({"survivor_source": "other"})),
    ):
        yield _summed(table).with_columns(pl.lit(kind).alias("kind")).select(list(columns))


def _summed(table: pl.DataFrame) -> pl.DataFrame:
    return table.group_by("source", "other").agg(pl.col("documents", "characters").sum())
