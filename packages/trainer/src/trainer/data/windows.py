"""Step → windows: where on which stream each of them lies. Pure arithmetic over the timeline.

A window is exactly seq_len tokens of one block. A rank's part of a step is contiguous, and the parts of all ranks are
as long as one another to one window: nothing else depends on the number of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from manifest.checkpoint import Timeline
from manifest.order import read


@dataclass(frozen=True)
class Window:
    """Tokens [start, start + length) of a stream (its tokens id), read through a view."""

    view: str
    stream: str
    start: int
    length: int


def windows(timeline: Timeline, segment: int, first: int, stop: int) -> Iterator[Window]:
    """The windows [first, stop) of a segment."""
    per_slot = timeline.windows_per_slot(segment)
    length = timeline.paces[segment].seq_len
    first_slot = timeline.order.segments[segment].first_slot
    slot, drawn = -1, None
    for window in range(first, stop):
        if drawn is None or window // per_slot != slot:
            slot = window // per_slot
            drawn = read(timeline.order, first_slot + slot)
        start = drawn.block * timeline.order.block_tokens + window % per_slot * length
        yield Window(drawn.view, drawn.stream, start, length)


def share(first: int, stop: int, *, rank: int, world: int) -> tuple[int, int]:
    """The part of the windows [first, stop) that a rank takes: contiguous, of ⌊n/world⌋ or ⌈n/world⌉ windows."""
    count = stop - first
    return first + rank * count // world, first + (rank + 1) * count // world
