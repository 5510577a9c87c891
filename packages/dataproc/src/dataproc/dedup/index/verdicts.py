"""Documents and the components of their texts → who survives, and whom an addition or a removal demotes or promotes.

    report: id, source, status, match, match_source, jaccard f64, survivor, survivor_source, rule

of a batch, in order of status and id:
    kept, removed   a document that was added and has a near-duplicate. match: the old one of the largest Jaccard index,
                    and of these the first by id; empty, and jaccard NaN, if all its near-duplicates are new. survivor:
                    of its cluster; rule: the key of the keep order by which it came behind the survivor
    demoted         a document that had survived until now, and the survivor that takes its place
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.index.arrivals import Arrivals
from dataproc.dedup.index.graph import Edges, components, joined
from dataproc.dedup.index.known import documents_of, members_of
from dataproc.dedup.index.search import Links
from dataproc.dedup.index.settings import Settings
from dataproc.dedup.index.state import Index
from dataproc.dedup.keep import ranked
from dataproc.documents import rows_of
from dataproc.stage import shard_files
from manifest.artifact import Opened

I64 = NDArray[np.int64]

REPORT = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("status", pa.string()),
        ("match", pa.string()),
        ("match_source", pa.string()),
        ("jaccard", pa.float64()),
        ("survivor", pa.string()),
        ("survivor_source", pa.string()),
        ("rule", pa.string()),
    ]
)
MEMBER = {"document": pl.Int64, "id": pl.String, "source": pl.String, "characters": pl.Int64, "text": pl.Int64}


def report_of(index: Index, arrivals: Arrivals, links: Links) -> pl.DataFrame:
    """The report of a batch (see the module's docstring)."""
    old = living_members(index, links.old.texts, index.dead_documents())
    new = _arrived(arrivals, _touched(arrivals, links))
    before = survivors(old, links.old.texts, links.old.component, index.settings)
    texts = np.union1d(links.old.texts, new["text"].to_numpy())
    component = components(texts, joined([links.edges, _held_together(links)]))
    after = survivors(pl.concat([old, new]), texts, component, index.settings)
    ours = after.filter(pl.col("document") < 0).join(_matches(links, old), on="text", how="left")
    ours = ours.with_columns(
        pl.when(pl.col("rule") == "").then(pl.lit("kept")).otherwise(pl.lit("removed")).alias("status")
    )
    had = before.filter(pl.col("rule") == "").select("id")
    demoted = after.filter(pl.col("document") >= 0, pl.col("rule") != "").join(had, on="id", how="semi")
    demoted = demoted.with_columns(pl.lit("demoted").alias("status"))
    ours = ours.filter(pl.col("members") > 1)
    return _as_report(pl.concat([ours, demoted], how="diagonal"))


def read_report(batch: Opened) -> pl.DataFrame:
    """The report of a published batch."""
    shards = [rows_of(shard) for shard in shard_files(batch, "report")]
    return pl.DataFrame(pl.from_arrow(pa.concat_tables([REPORT.empty_table(), *shards])))


def living_members(index: Index, texts: I64, dead_documents: I64) -> pl.DataFrame:
    """The documents of some texts without the dead: document, id, source, characters, text."""
    _, documents = members_of(index, texts)
    return documents_of(index, np.setdiff1d(documents, dead_documents))


def survivors(members: pl.DataFrame, texts: I64, component: I64, settings: Settings) -> pl.DataFrame:
    """Documents with `cluster` (its smallest id), `members` (how many it has), `survivor`, `survivor_source`, `rule`.

    component: of each of `texts`, ascending. The rule of a survivor is empty.
    """
    of_text = component[np.searchsorted(texts, members["text"].to_numpy())]
    clustered = members.with_columns(pl.Series("component", of_text, pl.Int64)).with_columns(
        pl.col("id").min().over("component").alias("cluster"), pl.len().over("component").alias("members")
    )
    rank = ranked(clustered.select("id", "cluster", "source", "characters"), settings.keep, settings.sources)
    return clustered.join(rank.select("id", "survivor", "survivor_source", "rule"), on="id")


def counts_of(report: pl.DataFrame) -> dict[str, int]:
    """A report in numbers."""
    status = report["status"]
    return {
        "matched": int((report["match"] != "").sum()),
        "removed": int((status == "removed").sum()),
        "demoted": int((status == "demoted").sum()),
    }


def _as_report(table: pl.DataFrame) -> pl.DataFrame:
    filled = table.with_columns(
        pl.col("match", "match_source").fill_null(""), pl.col("jaccard").fill_null(float("nan"))
    )
    return filled.select(REPORT.names).sort("status", "id")


def _touched(arrivals: Arrivals, links: Links) -> NDArray[np.bool_]:
    """The documents that arrive and may have a near-duplicate: their text is old, comes twice, or has an edge."""
    ends = np.concatenate([links.edges.a, links.edges.b])
    kept = arrivals.text[arrivals.kept]
    text, copies = np.unique(kept, return_counts=True)
    near = np.concatenate([ends, text[copies > 1], links.old.texts, links.nearest.a])
    return arrivals.kept & np.isin(arrivals.text, near)


def _arrived(arrivals: Arrivals, wanted: NDArray[np.bool_]) -> pl.DataFrame:
    """Some of the documents that arrive, as `living_members` gives old ones; their numbers are below zero."""
    rows: list[Mapping[str, Any]] = []
    for pair in arrivals.pairs:
        places = np.flatnonzero(wanted[pair.first : pair.first + pair.rows])
        if len(places):
            table = rows_of(pair.signatures, ["id", "characters"]).take(pa.array(places)).to_pylist()
            texts = arrivals.text[places + pair.first].tolist()
            for place, row, text in zip(places.tolist(), table, texts, strict=True):
                number = -1 - pair.first - place
                rows.append({"document": number, "source": pair.source, "text": text, **row})
    return pl.DataFrame(rows, schema=MEMBER)


def _held_together(links: Links) -> Edges:
    """What connects the old texts of a component, for want of their edges: each with the first."""
    old = links.old
    return Edges(old.texts, old.component, np.ones(len(old.texts)))


def _matches(links: Links, old: pl.DataFrame) -> pl.DataFrame:
    """text → match, match_source, jaccard: the nearest old document. A text that is old itself is nearest to itself."""
    themselves = Edges(links.old.texts, links.old.texts, np.ones(len(links.old.texts)))
    nearest = joined([links.nearest, themselves])
    pairs = pl.DataFrame({"text": nearest.a, "other": nearest.b, "jaccard": nearest.jaccard})
    named = pairs.join(old.select(other="text", match="id", match_source="source"), on="other")
    best = named.sort(pl.col("jaccard"), pl.col("match"), descending=[True, False])
    return best.unique("text", keep="first", maintain_order=True).select("text", "match", "match_source", "jaccard")
