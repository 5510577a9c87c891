"""Best-fit-decreasing packing of documents into sequences, a pure function of (lengths, capacity).

Ding et al. 2024, "Fewer Truncations Improve Language Modeling". A document longer than a sequence is cut into
pieces of a sequence first. The pieces are placed from the longest to the shortest (equal lengths in the order of
the stream), each into the open bin with the least room that holds it; of bins with equal room, the one that came to
that room first; where none holds it, into a new bin.

Pieces of one length are placed together. If c is the least room ≥ L, a bin with room c takes ⌊c / L⌋ pieces in a
row, because what is left of it is the least room again. So the work is one array step per (length, room) that meet.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Bins:
    """Pieces of documents, bin after bin. Bin b holds the pieces offsets[b] to offsets[b + 1]."""

    document: Ints  # (pieces,) index in the stream
    start: Ints  # (pieces,) first token within the document
    length: Ints  # (pieces,) tokens, 1 to capacity
    offsets: Ints  # (bins + 1,)
    capacity: int

    @property
    def padding(self) -> int:
        """Places in all bins that hold no token."""
        return (len(self.offsets) - 1) * self.capacity - int(self.length.sum())

    @property
    def cut(self) -> int:
        """How many documents are in more than one piece."""
        return len(np.unique(self.document[self.start > 0]))


def best_fit(lengths: Ints, capacity: int) -> Bins:
    """The bins of documents of these lengths (tokens); an empty one is in no bin.

    Raises ValueError for a negative length or no capacity.
    """
    if capacity < 1 or (len(lengths) and int(lengths.min()) < 0):
        raise ValueError("best_fit needs a positive capacity and lengths that are not negative")
    document, start, length = _pieces(lengths, capacity)
    falling = np.argsort(-length, kind="stable")
    bin_of = np.empty(len(length), np.int64)
    bin_of[falling], bins = _place(np.bincount(length, minlength=capacity + 1), capacity)
    layout = falling[np.argsort(bin_of[falling], kind="stable")]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(bin_of, minlength=bins))]).astype(np.int64)
    return Bins(document[layout], start[layout], length[layout], offsets, capacity)


def _pieces(lengths: Ints, capacity: int) -> tuple[Ints, Ints, Ints]:
    """Document, start and length of each piece, in stream order."""
    count = -(-lengths // capacity)
    document = np.repeat(np.arange(len(lengths), dtype=np.int64), count)
    first = np.cumsum(count) - count
    start = (np.arange(len(document), dtype=np.int64) - first[document]) * capacity
    return document, start, np.minimum(lengths[document] - start, capacity)


def _place(counts: Ints, capacity: int) -> tuple[Ints, int]:
    """The bin of each piece, pieces from long to short, and how many bins. counts[L]: pieces of length L."""
    rooms = _Rooms(capacity)
    placed = [np.empty(0, np.int64)]
    for length in range(capacity, 0, -1):
        left = int(counts[length])
        while left:
            room = rooms.least(length)
            each = room // length
            bins = rooms.take(room, -(-left // each))
            taken = min(left, len(bins) * each)
            placed.append(np.repeat(bins, each)[:taken])
            last = each - (len(bins) * each - taken)  # pieces in the last bin
            rooms.give(room - each * length, bins[:-1])
            rooms.give(room - last * length, bins[-1:])
            left -= taken
    return np.concatenate(placed), rooms.opened


class _Rooms:
    """Open bins by the room that they have left; a bin of full room is opened when none else will do."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.opened = 0
        self._queues: list[deque[Ints]] = [deque() for _ in range(capacity + 1)]
        self._present = 0  # bit c: some open bin has room c

    def least(self, length: int) -> int:
        """The least room ≥ length."""
        above = self._present >> length
        return length + (above & -above).bit_length() - 1 if above else self.capacity

    def take(self, room: int, wanted: int) -> Ints:
        """Up to `wanted` bins of this room, at least one, first come first."""
        if room == self.capacity:
            self.opened += wanted
            return np.arange(self.opened - wanted, self.opened, dtype=np.int64)
        queue = self._queues[room]
        bins = queue.popleft()
        if len(bins) > wanted:
            queue.appendleft(bins[wanted:])
        elif not queue:
            self._present &= ~(1 << room)
        return bins[:wanted]

    def give(self, room: int, bins: Ints) -> None:
        if room and len(bins):
            self._queues[room].append(bins)
            self._present |= 1 << room
