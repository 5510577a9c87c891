"""What `trainer fit` says of a run at its end: what it has done, what it lost, and what it passed over.

metrics.jsonl, the newest checkpoint ─► lines
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from manifest.checkpoint import Checkpoint, Timeline
from manifest.progress import span
from trainer.run import METRICS

NAMED = 5
"""Places that are named; checkpoints have all."""


def summary(directory: Path, last: Checkpoint) -> Iterator[str]:
    """The lines. last: the newest checkpoint of the run in a directory."""
    rows = [json.loads(line) for line in (directory / METRICS).read_text(encoding="utf-8").splitlines()]
    total = last.timeline.total_steps
    if last.step < total:
        yield f"stopped after step {last.step} of {total}; the same command goes on from there"
    if last.timeline.skipped:
        yield passed_over(last.timeline)
    if not rows:
        return
    learned = [row for row in rows if row["loss"] is not None]
    done = f"{len(rows):,} steps done, {rows[-1]['tokens']:,} tokens in {span(sum(row['seconds'] for row in rows))}"
    if learned:
        views = ", ".join(f"{view} {loss:.3f}" for view, loss in sorted(learned[-1]["views"].items()))
        done += f": loss {learned[0]['loss']:.3f} → {learned[-1]['loss']:.3f} ({views})"
    yield f"{done}; {directory / METRICS}"
    if len(learned) < len(rows):
        yield f"{len(rows) - len(learned):,} steps had nothing to learn: all of their tokens are masked (loss null)"
    padding = sum(row.get("padding") or 0 for row in rows)
    if padding:
        yield f"{padding:,} of the tokens read are padding of packed windows"
    fim: Counter[str] = Counter()
    for row in rows:
        fim.update(row.get("fim") or {})
    if fim["segments"]:
        yield _fim_line(fim)


def passed_over(timeline: Timeline) -> str:
    """Such as `warning: 205 of 900 steps were not learned, for spikes: 300 to 500 (main), …`."""
    skipped = timeline.skipped
    steps = sum(stop - first for first, stop in skipped)
    phases = timeline.phase_steps().items()
    places = []
    for first, stop in skipped[:NAMED]:
        phase = next(name for name, steps in phases if first in steps)
        places.append(f"{first}{f' to {stop - 1}' if stop - first > 1 else ''} ({phase})")
    if len(skipped) > NAMED:
        places.append(f"and {len(skipped) - NAMED:,} more places, which the checkpoint has (timeline.skipped)")
    return f"warning: {steps:,} of {timeline.total_steps:,} steps were not learned, for spikes: {', '.join(places)}"


def _fim_line(counts: Counter[str]) -> str:
    """What fill-in-the-middle did, counted as in data/fim.py."""
    return (
        "fill-in-the-middle: {rearranged:,} of {segments:,} documents in windows rearranged ({suffix_first:,} with the "
        "suffix first), {kept:,} kept for their special tokens or bytes; {truncated:,} tokens cut off, {padding:,} of "
        "padding"
    ).format_map(counts)
