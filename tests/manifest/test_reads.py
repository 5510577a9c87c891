"""Reading many slots at once is reading each of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.interleave import event_at, events
from manifest.order import OrderRecord, append, read, replace_from
from manifest.permutation import forward_each, permutation
from manifest.reads import PAGE_SLOTS, Pages, reads

COUNTS = st.one_of(
    st.lists(st.integers(1, 60), min_size=1, max_size=6), st.lists(st.integers(1, 10**13), min_size=1, max_size=6)
)


@given(COUNTS, st.data())
def test_events_are_those_at_each_slot_at_any_size(counts: list[int], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, sum(counts)))
    stop = data.draw(st.integers(first, min(first + 30, sum(counts))))
    views, ks = events(counts, first, stop)
    assert list(zip(views.tolist(), ks.tolist(), strict=True)) == [
        event_at(counts, slot) for slot in range(first, stop)
    ]


@given(st.lists(st.tuples(st.integers(1, 10**12), st.integers(0, 3)), min_size=1, max_size=4), st.data())
def test_permuted_together_or_one_by_one_is_the_same(domains: list[tuple[int, int]], data: st.DataObject) -> None:
    known = [permutation(size, seed=7, stream="a", epoch=epoch) for size, epoch in domains]
    which = data.draw(st.lists(st.integers(0, len(known) - 1), min_size=1, max_size=40))
    indices = [data.draw(st.integers(0, known[w].size - 1)) for w in which]
    found = forward_each(known, np.array(which), np.array(indices))
    assert found.tolist() == [known[w].forward(i) for w, i in zip(which, indices, strict=True)]


@st.composite
def records(draw: st.DrawFn) -> OrderRecord:
    """Phases over streams of a few blocks, one of which two views share, perhaps cut and continued."""
    streams = {view: (name, draw(st.integers(1, 9))) for view, name in {"a": "s", "c": "t"}.items()}
    streams["b"] = streams["a"]
    draws = st.fixed_dictionaries(dict.fromkeys(streams, st.integers(0, 14))).filter(lambda d: any(d.values()))
    record = OrderRecord(seed=draw(st.integers(0, 99)), block_tokens=8)
    for phase in range(draw(st.integers(1, 2))):
        record = append(record, mixture="m", phase=f"p{phase}", draws=draw(draws), streams=streams)
    cut = replace_from(record, draw(st.integers(0, record.slots)))
    return append(cut, mixture="n", phase="q", draws=draw(draws), streams=streams)


@given(records(), st.data())
def test_slots_in_a_row_read_what_each_of_them_reads(record: OrderRecord, data: st.DataObject) -> None:
    for index, segment in enumerate(record.segments):
        first = data.draw(st.integers(0, segment.slots))
        stop = data.draw(st.integers(first, segment.slots))
        found = reads(record, index, first, stop)
        expected = [read(record, segment.first_slot + slot) for slot in range(first, stop)]
        assert [segment.draws[view].view for view in found.views] == [one.view for one in expected]
        assert found.blocks.tolist() == [one.block for one in expected]
        assert found.epochs.tolist() == [one.epoch for one in expected]


def test_a_slot_is_the_same_in_its_page_and_pages_end_with_the_segment() -> None:
    draws = {"a": 2 * PAGE_SLOTS, "b": 100}
    record = append(
        OrderRecord(seed=1, block_tokens=8),
        mixture="m",
        phase="p",
        draws=draws,
        streams={"a": ("a", 1000), "b": ("b", 70)},
    )
    pages = Pages(record)
    for slot in (0, PAGE_SLOTS - 1, PAGE_SLOTS, record.slots - 1):
        view, block, epoch = pages.at(0, slot)
        one = read(record, slot)
        assert (record.segments[0].draws[view].view, block, epoch) == (one.view, one.block, one.epoch)
    with pytest.raises(IndexError):
        pages.at(0, record.slots)
