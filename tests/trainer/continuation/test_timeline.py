"""`changed` over random mixtures and cuts. The oracle follows every position on every stream's tape."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manifest.checkpoint import Pace, Timeline
from manifest.errors import RecipeError
from manifest.mixture import Mixture, Phase, Stream, Tokenizer, TokenShard, View
from manifest.order import OrderRecord, append, read
from manifest.permutation import permutation
from manifest.record import FileEntry
from trainer.continuation import changed
from trainer.recipe import PhaseRecipe, ScheduleRecipe
from trainer.timeline import tokens_before

BLOCK = 8
PHASES = ("first", "second")
RECIPES = {
    phase: PhaseRecipe(
        seq_len=BLOCK, tokens_per_step=BLOCK, schedule=ScheduleRecipe.model_validate({"shape": "constant", "peak": 0.1})
    )
    for phase in PHASES
}
SIZES = {"s0": 3, "s1": 7, "s2": 5, "s3": 1}
"""Blocks of each stream. The content of a stream is its name, whatever its id."""

Draws = Mapping[str, Mapping[str, int]]
Names = Mapping[str, str]
"""Views → streams."""


def mixture_of(draws: Draws, views: Names, history: str = "") -> Mixture:
    """history: what else the ids of its streams depend on."""
    return Mixture(
        name="m",
        tokenizer=Tokenizer(uri="none", digest="0", vocab_size=9, end_of_text=0),
        block_tokens=BLOCK,
        streams={name: stream_of(name, history) for name in views.values()},
        views={view: View(of=name, stream=name) for view, name in views.items()},
        phases=tuple(Phase(name=phase, draw=dict(draw)) for phase, draw in draws.items()),
    ).identified()


def stream_of(name: str, history: str) -> Stream:
    tokens = SIZES[name] * BLOCK
    files = {kind: FileEntry(path=f"t.{kind}", bytes=1, sha256=f"{kind} of {name}") for kind in ("bin", "idx", "ids")}
    shard = TokenShard(**files, tokens=tokens, documents=1)
    return Stream(uri="none", id=f"{name}{history}", tokens=tokens, documents=1, blocks=SIZES[name], shards=(shard,))


def begun(mixture: Mixture, seed: int, paces: Mapping[str, tuple[int, int]]) -> Timeline:
    """paces: windows per block and per step."""
    timeline = Timeline(order=OrderRecord(seed=seed, block_tokens=BLOCK), paces=())
    streams = {
        view: (mixture.streams[v.stream].id, mixture.streams[v.stream].blocks) for view, v in mixture.views.items()
    }
    for phase in mixture.phases:
        per_slot, per_step = paces[phase.name]
        order = append(timeline.order, mixture=mixture.id, phase=phase.name, draws=phase.draw, streams=streams)
        pace = Pace(seq_len=BLOCK // per_slot, windows_per_step=per_step, first_step=timeline.total_steps)
        timeline = Timeline(order=order, paces=(*timeline.paces, pace))
    return timeline


VIEWS = st.dictionaries(st.sampled_from(["v0", "v1", "v2", "v3"]), st.sampled_from(sorted(SIZES)), min_size=1)
PACES = st.fixed_dictionaries({phase: st.tuples(st.sampled_from([1, 2, 4]), st.integers(1, 9)) for phase in PHASES})


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    views = draw(VIEWS)
    some = st.fixed_dictionaries({view: st.integers(0, 6) for view in views}).filter(lambda d: any(d.values()))
    return mixture_of({phase: draw(some) for phase in PHASES}, views, draw(st.sampled_from(["", "'"])))


@st.composite
def changes(draw: st.DrawFn) -> tuple[Timeline, Timeline, int, list[Mixture]]:
    """A timeline after no or one change; the same after one more at a step; that step; the mixtures."""
    read_so_far = [draw(mixtures())]
    after = begun(read_so_far[0], draw(st.integers(0, 9)), draw(PACES))
    before, step = after, 0
    for _ in range(draw(st.integers(1, 2))):
        steps = [s for s in range(1, after.total_steps) if after.slot_at(s) is not None]
        if not steps:
            break
        before, step, new = after, draw(st.sampled_from(steps)), draw(mixtures())
        after = changed(before, step, new, RECIPES, {mixture.id: mixture for mixture in read_so_far})
        read_so_far.append(new)
    return before, after, step, read_so_far


Changes = tuple[Timeline, Timeline, int, list[Mixture]]


def content_of(mixture: Mixture, view: str) -> str:
    return mixture.views[view].stream


def slots_of(timeline: Timeline) -> Iterator[tuple[int, str, str, str, int]]:
    """(segment, mixture, view, id of the tape, position) of every slot."""
    for slot in range(timeline.order.slots):
        found = read(timeline.order, slot)
        segment = timeline.order.segments[found.segment]
        blocks = next(draw.stream_blocks for draw in segment.draws if draw.view == found.view)
        pi = permutation(blocks, seed=timeline.order.seed, stream=found.stream, epoch=found.epoch)
        yield found.segment, segment.mixture, found.view, found.stream, found.epoch * blocks + pi.inverse(found.block)


@given(changes())
def test_every_phase_keeps_its_steps_and_tokens_and_the_steps_before_read_what_they_did(made: Changes) -> None:
    before, after, step, _ = made
    assert after.phase_steps() == before.phase_steps()
    assert [tokens_before(after, s) for s in range(after.total_steps + 1)] == [
        tokens_before(before, s) for s in range(before.total_steps + 1)
    ]
    slot = before.slot_at(step)
    assert [(r.view, r.stream, r.block) for r in (read(after.order, s) for s in range(slot or 0))] == [
        (r.view, r.stream, r.block) for r in (read(before.order, s) for s in range(slot or 0))
    ]


@given(changes())
def test_the_steps_from_the_change_on_read_the_new_mixture_alone(made: Changes) -> None:
    before, after, step, read_so_far = made
    if after is before:
        return
    for s in range(after.total_steps):
        mixture = after.order.segments[after.step(s).segment].mixture
        assert (mixture == read_so_far[-1].id) or s < step


@given(changes())
def test_what_is_left_is_shared_out_as_the_new_mixture_draws_it(made: Changes) -> None:
    before, after, step, read_so_far = made
    if after is before:
        return
    for segment, pace in zip(after.order.segments, after.paces, strict=True):
        if pace.first_step < step:
            continue
        draws = {view: blocks for view, blocks in read_so_far[-1].phase(segment.phase).draw.items() if blocks}
        taken = {draw.view: draw.blocks for draw in segment.draws}
        quotas = {view: Fraction(blocks * segment.slots, sum(draws.values())) for view, blocks in draws.items()}
        if all(quota >= 1 for quota in quotas.values()):
            assert taken.keys() == draws.keys()
            assert all(abs(taken[view] - quota) < 1 for view, quota in quotas.items())


@given(changes())
def test_a_stream_is_read_without_repeat_or_loss_whatever_its_id_and_whoever_reads_it(made: Changes) -> None:
    _, after, _, read_so_far = made
    by_id = {mixture.id: mixture for mixture in read_so_far}
    positions: dict[str, list[int]] = defaultdict(list)
    for _, mixture, view, _, position in slots_of(after):
        positions[content_of(by_id[mixture], view)].append(position)
    cut = {
        content_of(by_id[segment.mixture], draw.view)
        for segment in after.order.segments
        for draw, taken in zip(segment.draws, segment.taken, strict=True)
        if taken < draw.blocks
    }
    for stream, found in positions.items():
        assert max(Counter(found).values()) == 1
        if stream not in cut:
            assert sorted(found) == list(range(len(found)))


@given(changes())
def test_a_stream_that_goes_on_takes_up_first_what_the_cut_left(made: Changes) -> None:
    before, after, step, read_so_far = made
    if after is before:
        return
    by_id = {mixture.id: mixture for mixture in read_so_far}
    slot = before.slot_at(step) or 0
    slots = list(slots_of(after))
    done: dict[str, set[int]] = defaultdict(set)
    for _, mixture, view, _, position in slots[:slot]:
        done[content_of(by_id[mixture], view)].add(position)
    taken: dict[str, set[int]] = defaultdict(set)
    for _, mixture, view, _, position in slots[slot:]:
        taken[content_of(by_id[mixture], view)].add(position)
    for stream, found in taken.items():
        free = (position for position in range(10**6) if position not in done[stream])
        assert found == {next(free) for _ in found}


def test_a_phase_that_is_left_and_draws_nothing_is_refused() -> None:
    old = mixture_of({"first": {"v": 4}}, {"v": "s0"})
    new = mixture_of({"first": {"v": 0}}, {"v": "s0"})
    with pytest.raises(RecipeError, match="'first' draws no block"):
        changed(begun(old, 0, {"first": (1, 1)}), 2, new, {"first": RECIPES["first"]}, {old.id: old})


def test_a_boundary_is_a_step_that_begins_with_a_block() -> None:
    old = mixture_of({"first": {"v": 4}, "second": {"v": 2}}, {"v": "s1"})
    timeline = begun(old, 0, {"first": (4, 3), "second": (1, 2)})
    slots = [timeline.slot_at(step) for step in range(timeline.total_steps)]
    assert slots == [0, None, None, None, 3, None, 4]
