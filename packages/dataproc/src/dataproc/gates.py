"""Gates stop a build before it publishes what looks wrong, unless the recipe overrides them with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dataproc import progress
from dataproc.recipe.dedup import GateName, Gates
from manifest.errors import DataError


@dataclass
class Gatekeeper:
    """The gates of a build, and what it let pass by override: gate, where, found, allowed and reason of each."""

    gates: Gates
    overridden: list[dict[str, Any]] = field(default_factory=list)

    def check_cluster(self, group: str, summary: Mapping[str, Any]) -> None:
        """Raises DataError if a group's largest cluster is larger than `max_cluster`."""
        largest, allowed = int(summary["largest_cluster"]), self.gates.max_cluster
        if largest > allowed:
            self._trip(
                "max_cluster",
                f"clusters/{group}",
                largest,
                allowed,
                f"the largest cluster of group {group!r} has {largest:,} documents; the recipe allows {allowed:,}. A "
                "template or a header may link unrelated documents: raise dedup.threshold or dedup.ngram; if they are "
                "copies, raise dedup.gates.max_cluster",
            )

    def check_precision(self, group: str, summary: Mapping[str, Any]) -> None:
        """Raises DataError if of the sampled documents in clusters fewer than `min_precision` are near another."""
        precision = summary["sampled"]["precision"]
        share, allowed = precision["share"], self.gates.min_precision
        if share is not None and share < allowed:
            self._trip(
                "min_precision",
                f"clusters/{group}",
                share,
                allowed,
                f"of {precision['sampled']} sampled documents in clusters of group {group!r}, {precision['good']} are "
                f"near another one ({share:.1%}); the recipe asks for {allowed:.1%}. Set dedup.verify to exact, or "
                "give more rows to dedup.bands; if that is good enough, lower dedup.gates.min_precision",
            )

    def check_loss(self, source: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """Raises DataError if a source lost a larger share of its documents than `max_source_loss`."""
        had, kept, allowed = int(before["documents"]), int(after["documents"]), self.gates.max_source_loss
        if had and 1 - kept / had > allowed:
            self._trip(
                "max_source_loss",
                f"deduped/{source}",
                round(1 - kept / had, 6),
                allowed,
                f"dedup and hold-out leave {kept:,} of {had:,} documents of source {source!r}; the recipe allows a "
                f"loss of {allowed:.0%}. Raise dedup.threshold, or put the source earlier in the recipe; if the loss "
                "is right, raise dedup.gates.max_source_loss",
            )

    def check_epochs(self, epochs: Mapping[str, float], allowed: float | Mapping[str, float] | None) -> None:
        """Raises DataError if a stream is read more often than `max_epochs`: one for all, or by stream."""
        for stream, found in epochs.items():
            most = allowed.get(stream) if isinstance(allowed, Mapping) else allowed
            if most is not None and found > most:
                self._trip(
                    "max_epochs",
                    f"tokens/{stream}",
                    found,
                    most,
                    f"the phases read stream {stream!r} {found:g} times; the recipe allows {most:g}. Draw less of it, "
                    "give it more text, or raise max_epochs",
                )

    def _trip(self, gate: GateName, where: str, found: float, allowed: float, problem: str) -> None:
        reason = self.gates.override.get(gate)
        if reason is None:
            raise DataError(f"gate {gate}: {problem}, or override the gate with your reason: --override {gate}=REASON")
        record = {"gate": gate, "where": where, "found": found, "allowed": allowed, "reason": reason}
        if record not in self.overridden:
            self.overridden.append(record)
            progress.say(f"gate {gate} overridden for {where} ({found:,} against {allowed:,}): {reason}")
