"""Gates stop a build before it publishes what looks wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dataproc.recipe import Gates
from manifest.errors import DataError


def check_cluster(group: str, summary: Mapping[str, Any], gates: Gates) -> None:
    """Raises DataError if a group's largest cluster is larger than `max_cluster`."""
    largest = int(summary["largest_cluster"])
    if largest > gates.max_cluster:
        raise DataError(
            f"gate max_cluster: the largest cluster of group {group!r} has {largest:,} documents; the recipe allows "
            f"{gates.max_cluster:,}. A template or a header may link unrelated documents: raise dedup.threshold or "
            "dedup.ngram, or raise dedup.gates.max_cluster if they are copies"
        )


def check_loss(source: str, before: Mapping[str, Any], after: Mapping[str, Any], gates: Gates) -> None:
    """Raises DataError if a source lost a larger share of its documents than `max_source_loss`."""
    had, kept = int(before["documents"]), int(after["documents"])
    if had and 1 - kept / had > gates.max_source_loss:
        raise DataError(
            f"gate max_source_loss: dedup and hold-out leave {kept:,} of {had:,} documents of source {source!r}; the "
            f"recipe allows a loss of {gates.max_source_loss:.0%}. Raise dedup.threshold, put the source earlier in "
            "the recipe, or raise dedup.gates.max_source_loss if the loss is right"
        )
