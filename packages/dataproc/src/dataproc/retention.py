"""What became of every source: the table of a build, kept in its mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataproc.recipe import DataRecipe
from dataproc.stage import Planned, summary_of
from manifest.artifact import Opened

Artifacts = Mapping[str, Opened | Planned]


def retention(
    recipe: DataRecipe,
    documents: Artifacts,
    ledgers: Artifacts,
    heldout: Opened | Planned | None,
    deduped: Artifacts,
    tokens: Artifacts,
) -> dict[str, Any]:
    """{"sources": {source: counts of documents at every stage, tokens}}. tokens: by stream; those of a source are
    of all its streams, of which some may hold the same documents. Beside it, if there are any, {"answers": {stream
    of which only answers are learned: documents, tokens, those that are learned, prompts that are too long}}.

    A document is counted once: unreadable, unanswered (named only of sources with answers), short, tombstoned (named
    only where there are any), duplicate (within its source or of another), held out (or near a held-out one), or kept.
    Where short documents take part in dedup, those that it removed count as duplicates.
    """
    removed = _removed(ledgers)
    held = summary_of(heldout)["sources"] if heldout else {}
    sizes = dict.fromkeys(recipe.sources, 0)
    for stream, slice_ in recipe.streams().items():
        sizes[slice_.source] += int(summary_of(tokens[stream])["tokens"])
    rows = {name: _row(name, documents, removed, held, deduped, size) for name, size in sizes.items()}
    answers = {name: dict(summary) for name in tokens if "learned" in (summary := summary_of(tokens[name]))}
    return {"sources": rows, **({"answers": answers} if answers else {})}


OF_CLUSTERS = (
    *("documents", "clusters", "clustered_documents", "largest_cluster", "cluster_sizes", "largest_clusters"),
    *("identical_links", "links", "capped_buckets", "capped_pairs", "bands", "sampled", "s_curve"),
)


def of_clusters(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What a mixture keeps of how its near-duplicates were found."""
    return {key: summary[key] for key in OF_CLUSTERS}


def _row(
    name: str,
    documents: Artifacts,
    removed: Mapping[str, Mapping[str, int]],
    held: Mapping[str, Mapping[str, int]],
    deduped: Artifacts,
    tokens: int,
) -> dict[str, int]:
    normal, kept = summary_of(documents[name]), summary_of(deduped[name])
    duplicates = removed.get(name, {"within": 0, "across": 0})
    after_dedup = normal["documents"] - duplicates["within"] - duplicates["across"]
    return {
        "records": normal["records"],
        "unreadable": normal["unreadable"],
        **({"unanswered": normal["unanswered"]} if "unanswered" in normal else {}),
        "short": normal["short"] + kept["short"],
        **({"tombstoned": normal["tombstoned"]} if "tombstoned" in normal else {}),
        "duplicates_within": duplicates["within"],
        "duplicates_across": duplicates["across"],
        "heldout": held.get(name, {"heldout": 0})["heldout"],
        "near_heldout": after_dedup - kept["short"] - kept["documents"] - held.get(name, {"heldout": 0})["heldout"],
        "kept": kept["documents"],
        "text_bytes": kept["text_bytes"],
        "tokens": tokens,
    }


def _removed(ledgers: Artifacts) -> dict[str, Mapping[str, int]]:
    return {name: counts for item in ledgers.values() for name, counts in summary_of(item)["sources"].items()}
