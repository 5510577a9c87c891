"""The order of training data: a pure function of (record, seed, slot), and its inverse.

    slot ──interleave──► (view, k) ──ranges──► position on the stream ──π of the epoch──► block
    block ──π⁻¹──► position, per epoch ──ranges──► (view, k) ──rank──► slot

A run's *order record* is a list of segments: which mixture and phase, from which slot on, how many blocks
each view draws, and where on its stream. A stream is an endless tape: position p is block π(p mod N) in epoch
p ÷ N, so epoch e is spent before e + 1 begins. Views of one stream take consecutive ranges of its tape. A
later segment goes on where the earlier stopped, also when the earlier one was cut short (`replace_from`):
what a cut segment left of its ranges is taken up first. So nothing is read twice and nothing is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from pydantic import Field

from manifest.errors import RecipeError
from manifest.interleave import event_at, prefix, rank
from manifest.permutation import permutation
from manifest.record import Model

Range = tuple[int, int]
"""(first position, count) on a stream's tape."""


class Draw(Model):
    """What one view draws in a segment. `stream` is the id of its tokens artifact, `stream_blocks` its N.

    Where a mixture has the tokens of an earlier one under another id, `stream` is the earlier id: the tape goes on.
    Where the phase packs by best fit, `stream` is the id of the pack: its blocks of bins are a tape of their own.
    """

    view: str
    stream: str
    stream_blocks: int = Field(gt=0)
    ranges: tuple[Range, ...]

    @property
    def blocks(self) -> int:
        return sum(count for _, count in self.ranges)

    def position(self, k: int) -> int:
        """The position on the tape of the k-th draw."""
        for first, count in self.ranges:
            if k < count:
                return first + k
            k -= count
        raise IndexError(f"view {self.view} draws {self.blocks} blocks")

    def draw_at(self, position: int) -> int | None:
        """The k whose position this is; None where this view does not go."""
        before = 0
        for first, count in self.ranges:
            if first <= position < first + count:
                return before + position - first
            before += count
        return None


class Segment(Model):
    """A run of slots under one phase of one mixture: all its draws, or the first `cut_after` of them."""

    first_slot: int = Field(ge=0)
    mixture: str
    phase: str
    draws: tuple[Draw, ...]
    cut_after: int | None = None

    @cached_property  # of what a cut does not change
    def counts(self) -> tuple[int, ...]:
        """Blocks that each draw plans. The interleaving is over the plan, also of a segment that is cut."""
        return tuple(draw.blocks for draw in self.draws)

    @property
    def slots(self) -> int:
        """Slots that belong to the segment."""
        return sum(self.counts) if self.cut_after is None else self.cut_after

    @property
    def taken(self) -> list[int]:
        """Blocks that each draw has read when the segment ends."""
        return prefix(self.counts, self.slots)


class OrderRecord(Model):
    """Everything the order depends on. It is in every checkpoint."""

    seed: int
    block_tokens: int = Field(gt=0)
    segments: tuple[Segment, ...] = ()

    @property
    def slots(self) -> int:
        """All slots."""
        return self.segments[-1].first_slot + self.segments[-1].slots if self.segments else 0

    def segment_at(self, slot: int) -> int:
        """The segment that a slot lies in. Raises IndexError outside the order."""
        for index, segment in enumerate(self.segments):
            if 0 <= slot - segment.first_slot < segment.slots:
                return index
        raise IndexError(f"slot {slot} of an order of {self.slots} slots")


@dataclass(frozen=True)
class Read:
    """What a slot reads: a block of a stream (its tokens id), as the k-th draw of a view."""

    slot: int
    segment: int
    view: str
    stream: str
    block: int
    epoch: int
    k: int


def read(record: OrderRecord, slot: int) -> Read:
    """What slot `slot` reads. O(S). Raises IndexError beyond the last slot."""
    index = record.segment_at(slot)
    segment = record.segments[index]
    view, k = event_at(segment.counts, slot - segment.first_slot)
    draw = segment.draws[view]
    epoch, within = divmod(draw.position(k), draw.stream_blocks)
    pi = permutation(draw.stream_blocks, seed=record.seed, stream=draw.stream, epoch=epoch)
    return Read(slot, index, draw.view, draw.stream, pi.forward(within), epoch, k)


def slots_reading(record: OrderRecord, stream: str, block: int) -> Iterator[int]:
    """Every slot that reads a block of a stream, ascending within each view of each segment."""
    return (found.slot for found in reads_of_block(record, stream, block))


def reads_of_block(record: OrderRecord, stream: str, block: int) -> Iterator[Read]:
    """Every reading of a block of a stream, by slots that ascend within each view of each segment.

    Per view and epoch that it touches: one inverse permutation and one rank, so no list as long as the data.
    """
    for index, segment in enumerate(record.segments):
        for view, draw in enumerate(segment.draws):
            if draw.stream != stream:
                continue
            for k, epoch in _draws_of(record.seed, draw, block):
                slot = rank(segment.counts, view, k)
                if slot < segment.slots:
                    yield Read(segment.first_slot + slot, index, draw.view, stream, block, epoch, k)


def _draws_of(seed: int, draw: Draw, block: int) -> Iterator[tuple[int, int]]:
    """Each k that draws a block, and its epoch."""
    epochs = {
        epoch
        for first, count in draw.ranges
        if count
        for epoch in range(first // draw.stream_blocks, (first + count - 1) // draw.stream_blocks + 1)
    }
    for epoch in sorted(epochs):
        pi = permutation(draw.stream_blocks, seed=seed, stream=draw.stream, epoch=epoch)
        k = draw.draw_at(epoch * draw.stream_blocks + pi.inverse(block))
        if k is not None:
            yield k, epoch


def append(
    record: OrderRecord,
    *,
    mixture: str,
    phase: str,
    draws: Mapping[str, int],
    streams: Mapping[str, tuple[str, int]],
) -> OrderRecord:
    """The record with one more segment at its end.

    draws: blocks per view; views that draw none are left out. streams: for each view the id and the blocks of
    its stream. Streams that the record has read before go on where they stopped; others start at 0.
    """
    tapes: dict[str, _Tape] = {}
    taken: list[Draw] = []
    for view, blocks in sorted(draws.items()):  # by name: the order of keys is not part of identity
        if blocks == 0:
            continue
        stream, stream_blocks = streams[view]
        tape = tapes.setdefault(stream, _tape(record, stream))
        taken.append(Draw(view=view, stream=stream, stream_blocks=stream_blocks, ranges=tape.take(blocks)))
    if not taken:
        raise RecipeError(f"phase {phase!r} draws no block; give it tokens, epochs or weights")
    segment = Segment(first_slot=record.slots, mixture=mixture, phase=phase, draws=tuple(taken))
    return record.model_copy(update={"segments": (*record.segments, segment)})


def replace_from(record: OrderRecord, slot: int) -> OrderRecord:
    """The record cut at a slot: what comes after is given back. Append the new segments to it."""
    if not 0 <= slot <= record.slots:
        raise IndexError(f"slot {slot} of an order of {record.slots} slots")
    kept = tuple(segment for segment in record.segments if segment.first_slot < slot)
    cut = record.model_copy(update={"segments": kept})
    if not kept or cut.slots == slot:
        return cut
    shortened = kept[-1].model_copy(update={"cut_after": slot - kept[-1].first_slot})
    return cut.model_copy(update={"segments": (*kept[:-1], shortened)})


class _Tape:
    """What of a stream is not drawn yet: ranges that cut segments gave back, then all from `cursor` on."""

    def __init__(self) -> None:
        self.given_back: list[Range] = []
        self.cursor = 0

    def take(self, count: int) -> tuple[Range, ...]:
        ranges: list[Range] = []
        while count and self.given_back:
            first, available = self.given_back.pop(0)
            used = min(count, available)
            ranges.append((first, used))
            if used < available:
                self.given_back.insert(0, (first + used, available - used))
            count -= used
        if count:
            ranges.append((self.cursor, count))
            self.cursor += count
        return tuple(ranges)

    def give_back(self, draw: Draw, taken: int) -> None:
        """Returns all but the first `taken` draws."""
        for first, count in draw.ranges:
            used = min(taken, count)
            taken -= used
            if used < count:
                self.given_back.append((first + used, count - used))
        self.given_back.sort()


def _tape(record: OrderRecord, stream: str) -> _Tape:
    """The tape of a stream after the last segment of a record."""
    tape = _Tape()
    for segment in record.segments:
        draws = [
            (draw, taken) for draw, taken in zip(segment.draws, segment.taken, strict=True) if draw.stream == stream
        ]
        for draw, _ in draws:
            assert tape.take(draw.blocks) == draw.ranges, "an order record's ranges follow from its segments"
        for draw, taken in draws:
            tape.give_back(draw, taken)
    return tape
