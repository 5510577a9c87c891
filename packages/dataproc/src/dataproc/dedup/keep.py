"""Who survives: the first of a cluster in a total order that the recipe states.

    source_order             the source that comes first in the recipe
    {highest: F}, {lowest: F}  the field F of the document's metadata, a number; whoever has none comes last
    longest                  the most characters
    id                       the smallest id; ends every order

`rule` is the first key in which a removed document came behind its survivor.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import polars as pl

from dataproc.dedup.keep_keys import ByField, Key


def ranked(clusters: pl.DataFrame, keep: Sequence[Key], source_order: Sequence[str]) -> pl.DataFrame:
    """The members of whole clusters, in order of cluster, each cluster's survivor first, with `survivor`,
    `survivor_source` and `rule` (empty for the survivor). Other columns stay.

    clusters: id, cluster, source, characters, and a column `field F` (f64) for every field of the order.
    """
    table = in_order(with_keys(clusters, keep, source_order), keep)
    firsts = [pl.col(name).first().over("cluster").alias(f"first {name}") for name in key_columns(keep)]
    return (
        table.with_columns(
            pl.col("id").first().over("cluster").alias("survivor"),
            pl.col("source").first().over("cluster").alias("survivor_source"),
            *firsts,
        )
        .with_columns(rule(keep))
        .drop(*key_columns(keep), *(f"first {name}" for name in key_columns(keep)))
    )


def key_columns(keep: Sequence[Key]) -> list[str]:
    """The columns that `with_keys` adds: less is kept first, null last."""
    return [f"key {_name(key)}" for key in keep]


def with_keys(members: pl.DataFrame, keep: Sequence[Key], source_order: Sequence[str]) -> pl.DataFrame:
    """Members with a column for each key of the order."""
    return members.with_columns(_column(key, source_order).alias(f"key {_name(key)}") for key in keep)


def in_order(members: pl.DataFrame, keep: Sequence[Key]) -> pl.DataFrame:
    """Members with keys, by cluster and then in keep order."""
    return members.sort("cluster", *key_columns(keep), nulls_last=True)


def rule(keep: Sequence[Key]) -> pl.Expr:
    """The first key in which a member differs from its survivor, of which the columns are named `first key …`."""
    found = pl.lit("")
    for key in reversed(keep):
        name = f"key {_name(key)}"
        found = pl.when(pl.col(name).ne_missing(pl.col(f"first {name}"))).then(pl.lit(_name(key))).otherwise(found)
    return found.alias("rule")


def numbers_in(meta: Iterable[str], field: str) -> pl.Series:
    """A field of canonical-JSON metadata as f64; null where there is none, or no number."""
    values = (json.loads(row).get(field) for row in meta)
    return pl.Series(
        [float(v) if isinstance(v, int | float) and not isinstance(v, bool) else None for v in values], dtype=pl.Float64
    )


def _name(key: Key) -> str:
    return key.name if isinstance(key, ByField) else key


def _column(key: Key, source_order: Sequence[str]) -> pl.Expr:
    if isinstance(key, ByField):
        value = pl.col(f"field {key.field}")
        return value if key.lowest is not None else -value
    columns = {
        "source_order": pl.col("source").replace_strict(
            {source: place for place, source in enumerate(source_order)}, return_dtype=pl.Int64
        ),
        "longest": -pl.col("characters"),
        "id": pl.col("id"),
    }
    return columns[key]
