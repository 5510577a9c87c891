"""What many slots in a row read: the order function (order.py) over arrays, for loaders that read one after the other.

    slots of a page ──events──► (view, k) ──ranges──► position on the stream ──π of the epoch──► block, as arrays (N,)

A page is PAGE_SLOTS slots of a segment. One costs a few milliseconds, about a twentieth of what its slots would cost
one by one, so a loader that seeks to any slot waits no longer than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from manifest.interleave import Ints, events
from manifest.order import Draw, OrderRecord
from manifest.permutation import Permutation, forward_each, permutation

PAGE_SLOTS = 2048
PAGES = 8


@dataclass(frozen=True)
class Reads:
    """What slots in a row of a segment read. Shapes (N,).

    views: indices into the segment's draws. blocks, epochs: of the stream of each draw.
    """

    views: Ints
    blocks: Ints
    epochs: Ints


def reads(record: OrderRecord, segment: int, first: int, stop: int) -> Reads:
    """What slots [first, stop) of a segment read, counted from its first: `order.read` of each of them.

    Raises IndexError outside the segment.
    """
    found = record.segments[segment]
    if not 0 <= first <= stop <= found.slots:
        raise IndexError(f"slots {first} to {stop} of a segment of {found.slots}")
    views_N, ks_N = events(found.counts, first, stop)
    within_N, epochs_N = np.zeros_like(ks_N), np.zeros_like(ks_N)
    which_N = np.zeros_like(ks_N)
    known: list[Permutation] = []
    for view in np.unique(views_N).tolist():
        draw = found.draws[view]
        own_M = np.flatnonzero(views_N == view)
        epochs_N[own_M], within_N[own_M] = np.divmod(_positions(draw, ks_N[own_M]), draw.stream_blocks)
        for epoch in np.unique(epochs_N[own_M]).tolist():
            which_N[own_M[epochs_N[own_M] == epoch]] = len(known)
            known.append(permutation(draw.stream_blocks, seed=record.seed, stream=draw.stream, epoch=epoch))
    return Reads(views_N, forward_each(known, which_N, within_N), epochs_N)


def _positions(draw: Draw, ks_N: Ints) -> Ints:
    """`draw.position` of each k."""
    firsts_R, counts_R = np.array(draw.ranges, np.int64).reshape(-1, 2).T
    stops_R = np.cumsum(counts_R)
    at_N = np.searchsorted(stops_R, ks_N, side="right")
    return firsts_R[at_N] + ks_N - (stops_R - counts_R)[at_N]


class Pages:
    """The reads of an order, page by page; the last PAGES of them are kept."""

    def __init__(self, record: OrderRecord) -> None:
        self._record = record
        self._page = lru_cache(maxsize=PAGES)(self._made)

    def at(self, segment: int, slot: int) -> tuple[int, int, int]:
        """What a slot of a segment reads, counted from the segment's first: (draw of the segment, block, epoch)."""
        return self._page(segment, slot // PAGE_SLOTS)[slot % PAGE_SLOTS]

    def _made(self, segment: int, number: int) -> list[tuple[int, int, int]]:
        first = number * PAGE_SLOTS
        found = reads(self._record, segment, first, min(first + PAGE_SLOTS, self._record.segments[segment].slots))
        return list(zip(found.views.tolist(), found.blocks.tolist(), found.epochs.tolist(), strict=True))
