"""A checkpoint's run in figures: what each phase read, and what a model without any knowledge would score."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manifest.checkpoint import Checkpoint


@dataclass(frozen=True)
class PhaseFigures:
    """A phase of a run as planned, and the steps of it that the checkpoint has behind it. Lengths in tokens. Where the
    run was continued with another mixture within the phase, each of its parts.

    draws: the share of the phase's tokens that each view gives.
    """

    name: str
    steps: int
    done: int
    seq_len: int
    tokens_per_step: int
    tokens: int
    draws: Mapping[str, float]


def phases(record: Checkpoint) -> list[PhaseFigures]:
    """The phases of a run, in order."""
    return [_phase(record, segment) for segment in range(len(record.timeline.paces))]


def _phase(record: Checkpoint, number: int) -> PhaseFigures:
    timeline = record.timeline
    segment, pace, steps = timeline.order.segments[number], timeline.paces[number], timeline.steps(number)
    taken = dict(zip((draw.view for draw in segment.draws), segment.taken, strict=True))
    goes_on = any(earlier.phase == segment.phase for earlier in timeline.order.segments[:number])
    return PhaseFigures(
        name=f"{segment.phase}, from step {pace.first_step}" if goes_on else segment.phase,
        steps=steps,
        done=min(max(record.step - pace.first_step, 0), steps),
        seq_len=pace.seq_len,
        tokens_per_step=pace.windows_per_step * pace.seq_len,
        tokens=timeline.windows(number) * pace.seq_len,
        draws={view: blocks / max(segment.slots, 1) for view, blocks in taken.items()},
    )


def uniform_bits_per_byte(summary: Mapping[str, Any]) -> float:
    """The score of a model to which all tokens of the tokenizer are equally likely. summary: a report's."""
    sizes = summary["sources"].values()
    bits = math.log2(summary["subject"]["vocabulary"]) * sum(size["tokens"] for size in sizes)
    return float(bits / sum(size["bytes"] for size in sizes))
