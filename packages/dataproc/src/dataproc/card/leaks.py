"""A mixture that was held against evaluation sets → what its card says of it, a few documents beside the items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from dataproc.card.record import Decontamination, EvaluationCard, Leak
from dataproc.documents import batches, frame_of
from dataproc.samples import texts_of, upstream
from dataproc.stage import shard_files
from manifest.artifact import Opened
from manifest.identity import hash64
from manifest.mixture import Mixture

SAMPLES = 6
MATCH_CHARS, BESIDE_CHARS = 320, 100
_ITEM = ("evaluation", "file", "line")
_SPANS = pl.Schema(
    {
        **dict.fromkeys(("id", "source", "evaluation", "file", "item"), pl.String()),
        **dict.fromkeys(("line", "start", "end", "item_start", "item_end", "grams"), pl.Int64()),
    }
)


def decontamination(mixture: Opened) -> Decontamination | None:
    """None if the mixture was held against none. Raises ArtifactError if what it was made from is gone or changed."""
    made = mixture.manifest
    assert isinstance(made, Mixture)
    if "contamination" not in made.summary:
        return None
    found = made.summary["contamination"]
    stages = upstream(mixture)
    (searched,) = [item for item in stages if item.manifest.kind == "contamination"]
    return Decontamination(
        ngram=searched.manifest.config["ngram"],
        action=found["action"],
        documents=found["documents"],
        evaluations=tuple(_evaluation(name, one) for name, one in found["evaluations"].items()),
        samples=_samples(searched, [item for item in stages if item.manifest.kind == "documents"]),
    )


def _evaluation(name: str, found: Mapping[str, Any]) -> EvaluationCard:
    counts = {key: found[key] for key in ("items", "whole", "skipped", "found", "documents")}
    sources = {source: of["documents"] for source, of in found["sources"].items() if of["documents"]}
    return EvaluationCard(name=name, sources=sources, **counts)


def _samples(searched: Opened, documents: Sequence[Opened]) -> tuple[Leak, ...]:
    """The longest span of each of some items, by hash of the document's id, every set in turn."""
    spans = frame_of(shard_files(searched, "spans"), _SPANS)
    key = pl.col("id").map_elements(lambda i: hash64(f"sample/{i}"), return_dtype=pl.UInt64)
    longest = spans.sort(pl.col("grams"), "id", "start", descending=[True, False, False]).unique(
        _ITEM, keep="first", maintain_order=True
    )
    turn = pl.int_range(pl.len()).over("evaluation")
    chosen = longest.sort(key).with_columns(turn.alias("turn")).sort("turn", "evaluation").head(SAMPLES)
    texts = texts_of(documents, chosen["id"].to_list()) if chosen.height else {}
    items = _items(searched, chosen.select(_ITEM))
    return tuple(
        _leak(row, texts[row["id"]], items[tuple(row[key] for key in _ITEM)]) for row in chosen.iter_rows(named=True)
    )


def _items(searched: Opened, wanted: pl.DataFrame) -> dict[tuple[Any, ...], str]:
    """The texts of some items."""
    found: dict[tuple[Any, ...], str] = {}
    for shard in shard_files(searched, "items"):
        for batch in batches(shard, [*_ITEM, "text"]):
            rows = pl.DataFrame(pl.from_arrow(batch)).join(wanted, on=_ITEM, how="semi")
            found |= {row[:-1]: row[-1] for row in rows.select(*_ITEM, "text").iter_rows()}
    return found


def _leak(row: Mapping[str, Any], document: str, item: str) -> Leak:
    before, match, after = _cut(document, row["start"], row["end"])
    item_before, item_match, item_after = _cut(item, row["item_start"], row["item_end"])
    label = f"{row['file']}:{row['line']}" + (f" ({row['item']})" if row["item"] else "")
    return Leak(
        **{key: row[key] for key in ("id", "source", "evaluation")},
        item=label,
        before=before,
        match=match,
        after=after,
        item_before=item_before,
        item_match=item_match,
        item_after=item_after,
    )


def _cut(text: str, start: int, end: int) -> tuple[str, str, str]:
    """What stands before a span, the span, and what stands behind it, in one line and shortened."""
    match = text[start:end]
    if len(match) > MATCH_CHARS:
        match = f"{match[: MATCH_CHARS // 2]} … {match[-MATCH_CHARS // 2 :]}"
    before, after = text[max(0, start - BESIDE_CHARS) : start], text[end : end + BESIDE_CHARS]
    before = ("… " if start > BESIDE_CHARS else "") + before
    after += " …" if end + BESIDE_CHARS < len(text) else ""
    return " ".join(before.split()), " ".join(match.split()), " ".join(after.split())
