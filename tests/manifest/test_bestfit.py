"""Best-fit-decreasing packing against placing one piece at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.bestfit import Bins, best_fit

LENGTHS = st.lists(st.integers(0, 70), max_size=80)


def one_at_a_time(lengths: list[int], capacity: int) -> list[list[tuple[int, int, int]]]:
    pieces = [(d, s, min(capacity, n - s)) for d, n in enumerate(lengths) for s in range(0, n, capacity)]
    bins: list[list[tuple[int, int, int]]] = []
    room: list[tuple[int, int]] = []  # room of each bin and when it came to it
    for time, piece in enumerate(sorted(pieces, key=lambda piece: -piece[2])):
        fitting = [(*room[b], b) for b in range(len(bins)) if room[b][0] >= piece[2]]
        if not fitting:
            bins.append([])
            room.append((capacity, time))
        b = min(fitting)[2] if fitting else len(bins) - 1
        bins[b].append(piece)
        room[b] = (room[b][0] - piece[2], time)
    return bins


def listed(packed: Bins) -> list[list[tuple[int, int, int]]]:
    rows = list(zip(packed.document.tolist(), packed.start.tolist(), packed.length.tolist(), strict=True))
    return [rows[a:b] for a, b in zip(packed.offsets[:-1], packed.offsets[1:], strict=True)]


@given(LENGTHS, st.integers(1, 40))
def test_bins_are_those_of_placing_one_piece_at_a_time(lengths: list[int], capacity: int) -> None:
    assert listed(best_fit(np.array(lengths, np.int64), capacity)) == one_at_a_time(lengths, capacity)


@given(LENGTHS, st.integers(1, 40))
def test_every_token_is_in_one_place_and_no_bin_overflows(lengths: list[int], capacity: int) -> None:
    packed = best_fit(np.array(lengths, np.int64), capacity)
    bins = listed(packed)
    tokens = sorted((d, t) for rows in bins for d, start, n in rows for t in range(start, start + n))
    assert tokens == [(d, t) for d, n in enumerate(lengths) for t in range(n)]
    assert all(0 < sum(n for _, _, n in rows) <= capacity for rows in bins)
    assert packed.padding == len(bins) * capacity - sum(lengths)
    assert packed.cut == sum(n > capacity for n in lengths)


def test_lengths_are_not_negative() -> None:
    with pytest.raises(ValueError, match="positive"):
        best_fit(np.array([3, -1], np.int64), 4)
