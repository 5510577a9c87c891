from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from manifest.interleave import event_at, prefix, rank

COUNTS = st.lists(st.one_of(st.integers(1, 4), st.integers(1, 60)), min_size=1, max_size=6)


def sorted_events(counts: list[int]) -> list[tuple[int, int]]:
    """The definition: all events (view, k), by the middle of the k-th of n equal parts, then by view."""
    events = [(Fraction(2 * k + 1, 2 * n), view, k) for view, n in enumerate(counts) for k in range(n)]
    return [(view, k) for _, view, k in sorted(events)]


@given(COUNTS)
def test_event_at_lists_the_events_in_order_of_their_time(counts: list[int]) -> None:
    assert [event_at(counts, slot) for slot in range(sum(counts))] == sorted_events(counts)


@given(COUNTS)
def test_rank_is_the_place_in_that_order(counts: list[int]) -> None:
    assert [rank(counts, view, k) for view, k in sorted_events(counts)] == list(range(sum(counts)))


@given(COUNTS)
def test_prefix_counts_what_lies_before_a_slot(counts: list[int]) -> None:
    events = [view for view, _ in sorted_events(counts)]
    for slots in range(len(events) + 1):
        assert prefix(counts, slots) == [events[:slots].count(view) for view in range(len(counts))]


@given(st.lists(st.integers(1, 10**13), min_size=1, max_size=12), st.data())
def test_rank_and_event_at_are_inverse_at_any_size(counts: list[int], data: st.DataObject) -> None:
    slot = data.draw(st.integers(0, sum(counts) - 1))
    view, k = event_at(counts, slot)
    assert rank(counts, view, k) == slot
    assert event_at(counts, rank(counts, view, counts[view] - 1)) == (view, counts[view] - 1)


@given(COUNTS)
def test_every_prefix_stays_near_the_shares(counts: list[int]) -> None:
    total, views = sum(counts), len(counts)
    for slots in range(total + 1):
        for taken, n in zip(prefix(counts, slots), counts, strict=True):
            share = Fraction(n, total)
            assert abs(taken - share * slots) <= 1 + share * Fraction(views, 2)
