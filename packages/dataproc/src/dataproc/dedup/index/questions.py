"""Single texts against an index: which document is nearest to each, and who survives of its cluster."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from dataproc.dedup.index.graph import reach
from dataproc.dedup.index.known import KnownTexts, texts_by_hash
from dataproc.dedup.index.state import Index
from dataproc.dedup.index.verdicts import living_members, survivors
from dataproc.dedup.near import near
from dataproc.dedup.stones import Texts


def nearest(index: Index, texts: Mapping[str, str]) -> pl.DataFrame:
    """texts: by a name → a row for each: id (its name), match, match_source, jaccard, survivor, survivor_source.

    The match is the document with the largest Jaccard index, and of these the first by id; null if none is near.

    The texts are taken as they are, and cleaned as documents are for their shingles.
    """
    asked = Texts(tuple(texts.values()), index.settings.matching)
    known = KnownTexts.of(index)
    found = near(known, index.settings.matching, asked.all_minima, asked.shingle_sets)
    query, equal = texts_by_hash(index, asked.hashes_N2)
    alive = ~np.isin(equal, known.dead)
    pairs = pl.DataFrame(
        {
            "query": np.concatenate([found.query, query[alive]]),
            "text": np.concatenate([found.text, equal[alive]]),
            "jaccard": np.concatenate([found.jaccard, np.ones(int(alive.sum()))]),
        }
    )
    reached = reach(index, pairs["text"].to_numpy(), known.dead)
    members = living_members(index, reached.texts, index.dead_documents())
    named = survivors(members, reached.texts, reached.component, index.settings)
    named = named.select("text", "survivor", "survivor_source", match="id", match_source="source")
    best = pairs.join(named, on="text").sort(pl.col("jaccard"), pl.col("match"), descending=[True, False])
    best = best.unique("query", keep="first", maintain_order=True)
    asked_for = pl.DataFrame({"query": np.arange(len(texts)), "id": list(texts)})
    columns = ("id", "match", "match_source", "jaccard", "survivor", "survivor_source")
    return asked_for.join(best, on="query", how="left").sort("query").select(columns)
