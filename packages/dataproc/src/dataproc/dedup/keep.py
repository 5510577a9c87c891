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
from pydantic import model_validator

from manifest.fields import RecipeModel

PLAIN = ("source_order", "longest", "id")


class ByField(RecipeModel):
    """A key over a number in the documents' metadata, such as a quality score."""

    highest: str | None = None
    lowest: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> ByField:
        if (self.highest is None) == (self.lowest is None):
            raise ValueError("a key by metadata is {highest: FIELD} or {lowest: FIELD}")
        return self

    @property
    def field(self) -> str:
        return self.highest or self.lowest or ""

    @property
    def name(self) -> str:
        """The rule as the ledger has it."""
        return f"highest {self.field}" if self.highest is not None else f"lowest {self.field}"


Key = str | ByField


def fields_of(keep: Sequence[Key]) -> list[str]:
    """The metadata fields that an order needs."""
    return [key.field for key in keep if isinstance(key, ByField)]


def ranked(clusters: pl.DataFrame, keep: Sequence[Key], source_order: Sequence[str]) -> pl.DataFrame:
    """The members of whole clusters, in order of cluster, each cluster's survivor first, with `survivor`,
    `survivor_source` and `rule` (empty for the survivor). Other columns stay.

    clusters: id, cluster, source, characters, and a column `field F` (f64) for every field of the order.
    """
    keys = {_name(key): _column(key, source_order).alias(f"key {_name(key)}") for key in keep}
    table = clusters.with_columns(*keys.values()).sort("cluster", *(f"key {name}" for name in keys), nulls_last=True)
    rule = pl.lit("")
    for name in reversed(keys):
        key = pl.col(f"key {name}")
        rule = pl.when(key.ne_missing(key.first().over("cluster"))).then(pl.lit(name)).otherwise(rule)
    return table.with_columns(
        pl.col("id").first().over("cluster").alias("survivor"),
        pl.col("source").first().over("cluster").alias("survivor_source"),
        rule.alias("rule"),
    ).drop(f"key {name}" for name in keys)


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
