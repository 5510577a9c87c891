"""Step → windows: where on which stream each of them lies. Pure arithmetic over the timeline.

A window is exactly seq_len tokens of one block: seq_len − 1 are learned, each from those before it in the window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from manifest.checkpoint import Timeline
from manifest.order import read
from manifest.reads import Pages


@dataclass(frozen=True)
class Window:
    """Tokens [start, start + length) of a stream (its tokens id, or that of its pack), read through a view: window
    `number` of a block.
    """

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


class Stretch(NamedTuple):
    """`rows` windows that follow each other in a block, from its window `number` on, each of seq_len tokens."""

    view: str
    stream: str
    start: int
    seq_len: int
    epoch: int
    block: int
    number: int
    rows: int

    def windows(self) -> Iterator[Window]:
        for n in range(self.rows):
            start, number = self.start + n * self.seq_len, self.number + n
            yield Window(self.view, self.stream, start, self.seq_len, self.epoch, self.block, number)


def stretches(timeline: Timeline, pages: Pages, segment: int, numbers: range) -> Iterator[Stretch]:
    """The windows of a segment with these numbers, those of a block together. pages: of the timeline's order."""
    per_slot = timeline.windows_per_slot(segment)
    seq_len = timeline.paces[segment].seq_len
    draws = timeline.order.segments[segment].draws
    block_tokens = timeline.order.block_tokens
    at, stop = numbers.start, numbers.stop
    while at < stop:
        slot, number = divmod(at, per_slot)
        rows = min(per_slot - number, stop - at)
        view, block, epoch = pages.at(segment, slot)
        draw = draws[view]
        start = block * block_tokens + number * seq_len
        yield Stretch(draw.view, draw.stream, start, seq_len, epoch, block, number, rows)
        at += rows
