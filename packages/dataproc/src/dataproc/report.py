"""What a build prints when it is done: a table of its sources, and how its near-duplicates were found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

from dataproc import progress
from dataproc.templates import LONG_PROMPT
from manifest.artifact import Opened
from manifest.mixture import Mixture

SHOWN = ("0.70", "0.80", "0.90")
SHOWN_CLUSTERS = 3
EXCERPT_CHARS = 80
COLUMNS = (
    ("source", "source"),
    ("documents\nin", "records"),
    ("un-\nreadable", "unreadable"),
    ("un-\nanswered", "unanswered"),
    ("short", "short"),
    ("tomb-\nstoned", "tombstoned"),
    ("duplicate\nwithin", "duplicates_within"),
    ("duplicate\nacross", "duplicates_across"),
    ("held\nout", "heldout"),
    ("near\nthem", "near_heldout"),
    ("kept", "kept"),
    ("tokens", "tokens"),
)


def show(item: Opened) -> None:
    """Prints what a person wants to know of a mixture on stderr; nothing for other artifacts."""
    if isinstance(item.manifest, Mixture):
        summary = item.manifest.summary
        progress.console.print(table(summary["sources"]))
        for line in answer_lines(summary.get("answers", {})):
            progress.console.print(line, highlight=False, markup=False)
        for group, clusters in summary["clusters"].items():
            for line in dedup_lines(group, clusters):
                progress.console.print(line, highlight=False, markup=False)


def answer_lines(streams: Mapping[str, Mapping[str, int]]) -> Iterator[str]:
    """How much is learned of the streams of which only answers are."""
    for name, found in streams.items():
        share = found["learned"] / max(1, found["tokens"])
        yield f"{name}: {found['learned']:,} of {found['tokens']:,} tokens are learned ({share:.1%}), the answers"
        if found["long_prompts"]:
            yield (
                f"  {found['long_prompts']:,} of {found['documents']:,} prompts have more than {LONG_PROMPT:,} tokens; "
                "in windows of that many there is no answer to them"
            )


def dedup_lines(group: str, clusters: Mapping[str, Any]) -> Iterator[str]:
    """How near-duplicates of a group of sources were found, and how well."""
    bands, rows = clusters["bands"]
    curve = ", ".join(f"{probability:.3f} at {j}" for j, probability in clusters["s_curve"].items() if j in SHOWN)
    yield f"near-duplicates ({group}): {bands} bands × {rows} rows find a pair of Jaccard index J with p = {curve}"
    sampled = clusters["sampled"]
    yield (
        f"  sampled: precision {_share(sampled['precision'])} documents in clusters, "
        f"recall {_share(sampled['recall'])} pairs"
    )
    if not clusters["clusters"]:
        return
    sizes = ", ".join(f"{count:,} of {size.replace('-', '–')}" for size, count in clusters["cluster_sizes"].items())
    yield f"  {clusters['clusters']:,} clusters: {sizes} documents"
    for large in clusters["largest_clusters"][:SHOWN_CLUSTERS]:
        excerpt = " ".join(large["excerpt"].split())[:EXCERPT_CHARS]
        yield f"  {large['documents']:,} like {large['cluster']}: {excerpt}"
    if clusters["capped_buckets"]:
        yield (
            f"  {clusters['capped_buckets']:,} buckets were too large to compare all of their pairs; "
            f"{clusters['capped_pairs']:,} pairs were left out"
        )


def _share(sampled: Mapping[str, Any]) -> str:
    return f"{sampled['share']:.4f} of {sampled['sampled']:,}" if sampled["sampled"] else "unknown, of 0"


def table(sources: Mapping[str, Mapping[str, int]]) -> Table:
    """The retention of every source, and their sum; columns that are seldom needed only where they are."""
    seldom = ("unreadable", "unanswered", "tombstoned", "near_heldout")
    shown = [c for c in COLUMNS if c[1] not in seldom or any(row.get(c[1]) for row in sources.values())]
    made = Table(box=None, pad_edge=False, header_style="bold", footer_style="bold", show_footer=True)
    for title, key in shown:
        total = "total" if key == "source" else f"{sum(row.get(key, 0) for row in sources.values()):,}"
        made.add_column(title, footer=total, justify="left" if key == "source" else "right", vertical="bottom")
    for name, row in sources.items():
        made.add_row(name, *(f"{row.get(key, 0):,}" for _, key in shown[1:]))
    return made
