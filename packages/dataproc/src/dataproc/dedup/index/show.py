"""An index as a whole: its batches, its clusters, who survives. All edges are read, and a few numbers per document."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from rich.table import Table

from dataproc.dedup.components import connect, labels
from dataproc.dedup.index.known import documents_of
from dataproc.dedup.index.state import BATCHES, Index
from dataproc.dedup.index.tables import EDGES, MEMBERS, read_table
from dataproc.dedup.index.verdicts import living_members, survivors
from dataproc.dedup.members import histogram
from manifest.artifact import open_artifact
from manifest.record import Artifact

I64 = NDArray[np.int64]


def overview(index: Index) -> dict[str, Any]:
    """What `dataproc index show` prints."""
    component, living = _components(index)
    sizes = np.bincount(component, weights=living, minlength=index.texts).astype(np.int64)
    log = [_entry(uri) for uri in index.entries[1:]]
    return {
        "index": str(index.root),
        "settings": index.settings.model_dump(mode="json"),
        "documents": int(living.sum()),
        "removed": len(index.dead_documents()),
        "sources": _sources(index, log),
        "clusters": int((sizes > 1).sum()),
        "clustered_documents": int(sizes[sizes > 1].sum()),
        "survivors": int((sizes > 0).sum()),
        "cluster_sizes": histogram(sizes[sizes > 1]),
        "bytes": sum(entry["bytes"] for entry in log),
        "log": log,
    }


def clusters(index: Index) -> pl.DataFrame:
    """id, cluster, source, characters, survivor, survivor_source, rule: the living documents of all clusters of two or
    more, in order of (cluster, id).
    """
    component, living = _components(index)
    sizes = np.bincount(component, weights=living, minlength=index.texts)
    texts = np.flatnonzero((sizes[component] > 1) & (living > 0))
    members = living_members(index, texts, index.dead_documents())
    named = survivors(members, texts, component[texts], index.settings)
    return named.select("id", "cluster", "source", "characters", "survivor", "survivor_source", "rule").sort(
        "cluster", "id"
    )


def table(shown: dict[str, Any]) -> Table:
    """The log for a person, with totals."""
    made = Table(box=None, pad_edge=False, header_style="bold", show_footer=True, footer_style="bold")
    for title, footer in (
        ("entry", "total"),
        ("what", f"{shown['survivors']:,} survive; {shown['clusters']:,} clusters"),
        ("documents", f"{shown['documents']:,}"),
        ("MB", f"{shown['bytes'] / 1e6:,.1f}"),
    ):
        made.add_column(title, footer=footer, justify="right" if title in ("documents", "MB") else "left")
    for entry in shown["log"]:
        made.add_row(entry["entry"], _what(entry), f"{entry['documents']:+,}", f"{entry['bytes'] / 1e6:,.1f}")
    return made


def _what(entry: dict[str, Any]) -> str:
    if entry["kind"] == BATCHES:
        return f"added: {entry['matched']:,} matched, {entry['removed']:,} are duplicates, {entry['demoted']:,} demoted"
    return f"removed: {entry['promoted']:,} promoted, {entry['clusters_split']:,} clusters split"


def _entry(uri: str) -> dict[str, Any]:
    manifest = open_artifact(uri).manifest
    assert isinstance(manifest, Artifact)
    summary = {key: value for key, value in manifest.summary.items() if key != "numbers"}
    documents = summary["documents"] if manifest.kind == BATCHES else -summary["removed"]
    size = sum(file.bytes for file in manifest.files())
    named = {"entry": manifest.name, "kind": manifest.kind, "path": uri, "created": manifest.created, "bytes": size}
    return {**named, **summary, "documents": documents}


def _components(index: Index) -> tuple[I64, I64]:
    """Of each text: the smallest text of its component, and how many living documents it has."""
    dead = np.zeros(index.texts, np.bool_)
    dead[index.dead_texts()] = True
    parent = np.arange(index.texts, dtype=np.int64)
    for path in index.with_edges():
        ends_E2 = np.stack(read_table(path, EDGES)[:2], axis=1).astype(np.int64)
        once = (ends_E2[:, 0] < ends_E2[:, 1]) & ~dead[ends_E2].any(axis=1)
        parent = connect(parent, ends_E2[once])
    return labels(parent), _living(index)


def _living(index: Index) -> I64:
    living = np.zeros(index.texts, np.int64)
    dead = index.dead_documents()
    for batch in index.batches:
        texts, documents = read_table(batch.directory / "members.table", MEMBERS)
        there = ~np.isin(documents.astype(np.int64) + batch.numbers.first_document, dead)
        living += np.bincount(texts[there].astype(np.int64), minlength=index.texts)
    return living


def _sources(index: Index, log: list[dict[str, Any]]) -> dict[str, int]:
    """Living documents by source, in keep order."""
    added: Counter[str] = Counter()
    for entry in log:
        added.update(entry.get("sources", {}))
    dead = documents_of(index, index.dead_documents())["source"].to_list()
    added.subtract(dead)
    return {name: added[name] for name in index.settings.sources}
