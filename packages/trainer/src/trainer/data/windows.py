"""Step → windows: where on which stream each of them lies. Pure arithmetic over the timeline.

A window is exactly seq_len tokens of one block: seq_len − 1 are learned, each from those before it in the window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from manifest.checkpoint import Timeline
from manifest.order import read


@dataclass(frozen=True)
class Window:
    """Tokens [start, start + length) of a stream (its tokens id), read through a view: window `number` of a block."""

    view: str
    stream: str
    start: int
    length: int
    epoch: int
    block: int
    number: int


def windows(timeline: Timeline, segment: int, numbers: range) -> Iterator[Window]:
    """The windows of a segment with these numbers."""
    per_slot = timeline.windows_per_slot(segment)
    length = timeline.paces[segment].seq_len
    first_slot = timeline.order.segments[segment].first_slot
    slot, drawn = -1, None
    for window in numbers:
        if drawn is None or window // per_slot != slot:
            slot = window // per_slot
            drawn = read(timeline.order, first_slot + slot)
        number = window % per_slot
        start = drawn.block * timeline.order.block_tokens + number * length
        yield Window(drawn.view, drawn.stream, start, length, drawn.epoch, drawn.block, number)
