"""How the draws of several views are laid over the slots of a segment.

View s draws n_s blocks. Its k-th draw is the event (s, k) at virtual time (2k+1) / 2n_s, the middle of the
k-th of n_s equal parts of [0, 1). The slots are all events in order of (time, s), compared in exact integers.
So every view is drawn exactly n_s times, and its count in every prefix stays within 1 + w_s·S/2 of its share
w_s (S views): in virtual time each count is within ½ of its line.

`counts` below is (n_0 … n_{S-1}), all positive.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Counts = Sequence[int]
Ints = npt.NDArray[np.int64]


def rank(counts: Counts, view: int, k: int) -> int:
    """The slot of event (view, k): how many events come before it. O(S)."""
    own = counts[view]
    total = 0
    for other, n in enumerate(counts):
        # Events (other, j) with (2j+1)·own < (2k+1)·n; for an earlier view also those at the same time.
        twice = (2 * k + 1) * n - own
        before = twice // (2 * own) + 1 if other < view else -(-twice // (2 * own))
        total += min(max(before, 0), n)
    return total


def event_at(counts: Counts, slot: int) -> tuple[int, int]:
    """The event (view, k) at a slot: the inverse of `rank`. At most S/2 steps of O(S)."""
    taken, difference = _near(counts, slot)
    while difference <= 0:  # go forward; the last event taken is the one sought
        view = _earliest(counts, taken)
        taken[view] += 1
        if difference == 0:
            return view, taken[view] - 1
        difference += 1
    while True:  # go back
        view = _latest(counts, taken)
        taken[view] -= 1
        difference -= 1
        if difference == 0:
            return view, taken[view]


def events(counts: Counts, first: int, stop: int) -> tuple[Ints, Ints]:
    """The events at slots [first, stop), as arrays of views and of ks: `event_at` of each of them."""
    if 2 * max(counts) ** 2 + 3 * max(counts) >= 1 << 63:  # `rank` in 64 bits
        found = np.array([event_at(counts, slot) for slot in range(first, stop)], np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]
    low, high = np.array(prefix(counts, first), np.int64), np.array(prefix(counts, stop), np.int64)
    views_E = np.repeat(np.arange(len(counts)), high - low)
    ks_E = np.arange(stop - first) - np.repeat(np.cumsum(high - low) - high, high - low)
    at_E = _ranks(np.array(counts, np.int64), views_E, ks_E) - first
    views_N, ks_N = np.empty_like(views_E), np.empty_like(ks_E)
    views_N[at_E], ks_N[at_E] = views_E, ks_E
    return views_N, ks_N


def _ranks(counts_S: Ints, views_E: Ints, ks_E: Ints) -> Ints:
    """`rank` of each event (view, k)."""
    own_E = counts_S[views_E]
    total_E = np.zeros_like(ks_E)
    for other, n in enumerate(counts_S):
        twice_E = (2 * ks_E + 1) * n - own_E
        rounded_E = np.where(other < views_E, twice_E + 2 * own_E, twice_E + 2 * own_E - 1)  # ⌊·⌋ + 1, or ⌈·⌉
        total_E += np.clip(rounded_E // (2 * own_E), 0, n)
    return total_E


def prefix(counts: Counts, slots: int) -> list[int]:
    """How often each view is drawn in the first `slots` slots."""
    if slots >= sum(counts):
        return list(counts)
    taken, difference = _near(counts, slots)
    for _ in range(-difference):
        taken[_earliest(counts, taken)] += 1
    for _ in range(difference):
        taken[_latest(counts, taken)] -= 1
    return taken


def _near(counts: Counts, slot: int) -> tuple[list[int], int]:
    """The draws of each view up to virtual time slot / N, and how many more than `slot` these are (± S/2)."""
    total = sum(counts)
    taken = [(2 * n * slot + total) // (2 * total) for n in counts]
    return taken, sum(taken) - slot


def _earliest(counts: Counts, taken: Sequence[int]) -> int:
    """The view whose next event comes first."""
    best = -1
    for view, n in enumerate(counts):
        if taken[view] == n:
            continue
        if best < 0 or (2 * taken[view] + 1) * counts[best] < (2 * taken[best] + 1) * n:
            best = view
    return best


def _latest(counts: Counts, taken: Sequence[int]) -> int:
    """The view whose last taken event comes last."""
    best = -1
    for view, n in enumerate(counts):
        if taken[view] == 0:
            continue
        if best < 0 or (2 * taken[view] - 1) * counts[best] >= (2 * taken[best] - 1) * n:
            best = view
    return best
