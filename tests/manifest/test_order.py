"""The five properties that the order of training data must have, over random records.

`Run` builds a record through `append` and `replace_from`, and beside it a list of what each slot must read, made by
sorting and counting alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.checkpoint import Pace, Timeline
from manifest.errors import RecipeError
from manifest.order import OrderRecord, append, read, replace_from, slots_reading
from manifest.permutation import permutation

BLOCK_TOKENS = 8
Slot = tuple[str, str, int]
"""(view, stream, position on the stream's tape)."""


@dataclass
class Run:
    """An order record and its oracle."""

    sizes: dict[str, int]
    views: dict[str, str]
    record: OrderRecord
    slots: list[Slot] = field(default_factory=list)
    unread: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    cursor: Counter[str] = field(default_factory=Counter)

    def append(self, phase: str, draws: dict[str, int]) -> None:
        streams = {view: (stream, self.sizes[stream]) for view, stream in self.views.items()}
        self.record = append(self.record, mixture="m", phase=phase, draws=draws, streams=streams)
        events = []
        for index, view in enumerate(sorted(view for view, n in draws.items() if n)):
            for k in range(draws[view]):
                slot = (view, self.views[view], self._next(self.views[view]))
                events.append((Fraction(2 * k + 1, 2 * draws[view]), index, slot))
        self.slots += [slot for _, _, slot in sorted(events)]

    def _next(self, stream: str) -> int:
        if self.unread[stream]:
            return self.unread[stream].pop(0)
        self.cursor[stream] += 1
        return self.cursor[stream] - 1

    def cut(self, slot: int) -> None:
        self.record = replace_from(self.record, slot)
        for _, stream, position in self.slots[slot:]:
            self.unread[stream].append(position)
            self.unread[stream].sort()
        del self.slots[slot:]

    def tapes(self) -> dict[str, list[int]]:
        """The positions that the record reads of each stream, in order of slot, through read() alone."""
        positions = defaultdict(list)
        for slot in range(self.record.slots):
            found = read(self.record, slot)
            size = self.sizes[found.stream]
            pi = permutation(size, seed=self.record.seed, stream=found.stream, epoch=found.epoch)
            positions[found.stream].append(found.epoch * size + pi.inverse(found.block))
        return positions


@st.composite
def runs(draw: st.DrawFn, *, cuts: bool = True) -> Run:
    sizes = {f"s{index}": draw(st.integers(1, 9)) for index in range(draw(st.integers(1, 3)))}
    views = {f"v{index}": draw(st.sampled_from(sorted(sizes))) for index in range(draw(st.integers(1, 4)))}
    run = Run(sizes, views, OrderRecord(seed=draw(st.integers(0, 99)), block_tokens=BLOCK_TOKENS))
    draws = st.fixed_dictionaries({view: st.integers(0, 14) for view in views}).filter(lambda d: any(d.values()))
    for index in range(draw(st.integers(1, 3))):
        run.append(f"phase{index}", draw(draws))
    for index in range(draw(st.integers(0, 2)) if cuts else 0):  # another mixture, with a stream of its own
        run.cut(draw(st.integers(0, run.record.slots)))
        run.sizes[f"new{index}"], run.views[f"new{index}"] = draw(st.integers(1, 9)), f"new{index}"
        run.append(f"replaced{index}", draw(draws) | {f"new{index}": draw(st.integers(0, 14))})
    return run


@given(runs(cuts=False))
def test_1_every_view_is_drawn_exactly_as_planned_and_near_its_share_in_every_prefix(run: Run) -> None:
    for segment in run.record.segments:
        planned = {draw.view: draw.blocks for draw in segment.draws}
        counts: Counter[str] = Counter()
        for done in range(1, segment.slots + 1):
            counts[read(run.record, segment.first_slot + done - 1).view] += 1
            for view, blocks in planned.items():
                share = Fraction(blocks, segment.slots)
                assert abs(counts[view] - share * done) <= 1 + share * Fraction(len(planned), 2)
        assert counts == planned


@given(runs(cuts=False))
def test_2_no_block_repeats_within_an_epoch_and_epochs_are_spent_in_turn(run: Run) -> None:
    blocks = defaultdict(list)
    for slot in range(run.record.slots):
        found = read(run.record, slot)
        blocks[found.stream, found.epoch].append(found.block)
    for (stream, epoch), drawn in blocks.items():
        assert len(set(drawn)) == len(drawn)
        if (stream, epoch + 1) in blocks:
            assert sorted(drawn) == list(range(run.sizes[stream]))


@given(runs(cuts=False))
def test_2_a_stream_read_through_one_view_is_read_along_its_tape_over_all_phases(run: Run) -> None:
    readers = Counter(run.views.values())
    for stream, positions in run.tapes().items():
        if readers[stream] == 1:
            assert positions == list(range(len(positions)))


@given(runs())
def test_3_a_slot_reads_what_sorting_all_events_puts_there(run: Run) -> None:
    assert run.record.slots == len(run.slots)
    for slot, (view, stream, position) in enumerate(run.slots):
        found = read(run.record, slot)
        epoch, within = divmod(position, run.sizes[stream])
        pi = permutation(run.sizes[stream], seed=run.record.seed, stream=stream, epoch=epoch)
        assert (found.view, found.stream, found.epoch) == (view, stream, epoch)
        assert found.block == pi.forward(within)


@given(runs())
def test_3_slots_reading_finds_every_slot_that_reads_a_block_and_no_other(run: Run) -> None:
    readers = defaultdict(list)
    for slot in range(run.record.slots):
        found = read(run.record, slot)
        readers[found.stream, found.block].append(slot)
    for stream, size in run.sizes.items():
        for block in range(size):
            assert sorted(slots_reading(run.record, stream, block)) == readers[stream, block]


def timeline_of(record: OrderRecord, paces: list[tuple[int, int]]) -> Timeline:
    """Paces are (windows per slot, windows per step), taken in turn."""
    found, first_step = [], 0
    for index, segment in enumerate(record.segments):
        per_slot, per_step = paces[index % len(paces)]
        found.append(Pace(seq_len=BLOCK_TOKENS // per_slot, windows_per_step=per_step, first_step=first_step))
        first_step += -(-segment.slots * per_slot // per_step)
    return Timeline(order=record, paces=tuple(found))


PACES = st.lists(st.tuples(st.sampled_from([1, 2, 4, 8]), st.integers(1, 20)), min_size=1, max_size=3)


@given(runs(), PACES)
def test_4_steps_partition_all_windows_in_order(run: Run, paces: list[tuple[int, int]]) -> None:
    timeline = timeline_of(run.record, paces)
    windows = []
    for step in range(timeline.total_steps):
        found = timeline.step(step)
        assert all(timeline.step_of(found.segment, window) == step for window in range(found.first, found.stop))
        windows += [(found.segment, window) for window in range(found.first, found.stop)]
    assert windows == [
        (index, window)
        for index, segment in enumerate(run.record.segments)
        for window in range(segment.slots * paces[index % len(paces)][0])
    ]
    with pytest.raises(IndexError):
        timeline.step(timeline.total_steps)


@given(runs(), PACES, st.integers(1, 9))
def test_4_workers_share_each_step_whatever_their_number(run: Run, paces: list[tuple[int, int]], world: int) -> None:
    timeline = timeline_of(run.record, paces)
    for step in range(timeline.total_steps):
        found = timeline.step(step)
        parts = [found.part(rank, world) for rank in range(world)]
        assert [window for part in parts for window in part] == list(range(found.first, found.stop))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(runs())
def test_5_replacing_the_mixture_repeats_nothing_and_loses_nothing(run: Run) -> None:
    for stream, positions in run.tapes().items():
        assert len(set(positions)) == len(positions)
        assert sorted(positions + run.unread[stream]) == list(range(len(positions) + len(run.unread[stream])))


@given(runs(), st.data())
def test_5_what_lies_before_the_cut_stays_as_it_was(run: Run, data: st.DataObject) -> None:
    before, slot = run.record, data.draw(st.integers(0, run.record.slots))
    run.cut(slot)
    run.append("other", dict.fromkeys(run.views, 3))
    assert [read(run.record, s) for s in range(slot)] == [read(before, s) for s in range(slot)]
    assert run.record.slots == slot + 3 * len(run.views)


@given(runs())
def test_5_a_stream_that_is_new_in_the_mixture_starts_at_its_beginning(run: Run) -> None:
    run.cut(run.record.slots // 2)
    run.sizes["new"], run.views["v_new"] = 5, "new"
    run.append("other", dict.fromkeys(run.views, 2))
    assert sorted(run.tapes()["new"]) == [0, 1]


@given(runs())
def test_a_record_survives_its_journey_through_json(run: Run) -> None:
    assert OrderRecord.model_validate_json(run.record.model_dump_json()) == run.record


def test_a_phase_that_draws_nothing_is_refused() -> None:
    record = OrderRecord(seed=0, block_tokens=8)
    with pytest.raises(RecipeError, match="'empty' draws no block"):
        append(record, mixture="m", phase="empty", draws={"a": 0}, streams={"a": ("s", 3)})


def test_ten_trillion_tokens_are_sought_by_arithmetic_alone() -> None:
    views = {f"v{index}": (f"s{index % 3}", 10**9 + index % 3) for index in range(10)}
    record = append(
        OrderRecord(seed=1, block_tokens=8192),
        mixture="m",
        phase="p",
        draws={view: 10**8 * (index + 1) for index, view in enumerate(views)},
        streams=views,
    )
    for slot in (0, 123_456_789, record.slots - 1):
        found = read(record, slot)
        assert slot in list(slots_reading(record, found.stream, found.block))
