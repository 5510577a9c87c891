"""The oracle reads the mixture's own files slot by slot, as the order says, and knows nothing of ranks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from manifest.artifact import Opened, open_streams
from manifest.checkpoint import Timeline
from manifest.errors import CorruptArtifact
from manifest.mixture import Mixture
from manifest.order import read
from trainer.data.loader import PADDING, StepSource, prefetched, step_source
from trainer.recipe import load_recipe
from trainer.timeline import make_timeline

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]

SCHEDULE = {"shape": "constant", "peak": 0.1}
PHASES = {
    "short": {"seq_len": 16, "tokens_per_step": 112, "schedule": SCHEDULE},
    "long": {"seq_len": 32, "tokens_per_step": 96, "schedule": SCHEDULE},
}


@pytest.fixture
def mixture(make_mixture: MakeMixture) -> Opened:
    return make_mixture({"short": {"a": 5, "b": 3}, "long": {"a": 2, "c": 3}}, tokens=300)


@pytest.fixture
def timeline(mixture: Opened, make_recipe: MakeRecipe) -> Timeline:
    recipe = load_recipe(make_recipe(phases=PHASES))
    assert isinstance(mixture.manifest, Mixture)
    return make_timeline(mixture.manifest, recipe, where="r", seed=5, tokens=None)


def rows_of_step(source: StepSource, world: int, step: int) -> np.ndarray:
    parts = [replace(source, rank=rank, world=world).read(step) for rank in range(world)]
    assert len({len(part.tokens) for part in parts}) == 1, "all ranks have the same number of rows"
    return np.concatenate([part.tokens[part.views != PADDING] for part in parts])


def test_a_run_reads_the_blocks_of_the_order_slot_by_slot(mixture: Opened, timeline: Timeline) -> None:
    source = step_source(mixture, timeline, rank=0, world=1)
    found = np.concatenate([source.read(step).tokens.ravel() for step in range(timeline.total_steps)])
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    by_id = {manifest.streams[name].id: stream for name, stream in open_streams(mixture).items()}
    expected = []
    for slot in range(timeline.order.slots):
        drawn = read(timeline.order, slot)
        expected.append(by_id[drawn.stream].read(drawn.block * 64, 64))
    assert np.array_equal(found, np.concatenate(expected))


@pytest.mark.parametrize("world", [2, 3, 5, 8])
def test_a_step_reads_the_same_windows_on_any_number_of_ranks(mixture: Opened, timeline: Timeline, world: int) -> None:
    source = step_source(mixture, timeline, rank=0, world=1)
    for step in range(timeline.total_steps):
        assert np.array_equal(rows_of_step(source, world, step), source.read(step).tokens)


def test_padding_has_no_weight_and_no_view(mixture: Opened, timeline: Timeline) -> None:
    source = step_source(mixture, timeline, rank=0, world=3)
    last = timeline.steps(0) - 1  # 32 windows in steps of 7: the last has 4, for 3 ranks
    batch = source.read(last)
    assert batch.weights.tolist() == [[1.0] * 15, [0.0] * 15]
    assert batch.views.tolist()[1] == PADDING


def test_each_window_carries_the_view_it_was_drawn_by(mixture: Opened, timeline: Timeline) -> None:
    source = step_source(mixture, timeline, rank=0, world=1)
    counted = dict.fromkeys(source.views, 0)
    for step in range(timeline.steps(0)):
        for view in source.read(step).views:
            counted[source.views[view]] += 1
    assert counted == {"a": 20, "b": 12, "c": 0}


def test_a_token_that_the_tokenizer_does_not_have_is_a_damaged_shard(mixture: Opened, timeline: Timeline) -> None:
    source = step_source(mixture, timeline, rank=0, world=1)
    source = replace(source, reader=replace(source.reader, vocab_size=2))
    with pytest.raises(CorruptArtifact, match="the tokenizer has 2"):
        source.read(0)


def test_prefetched_batches_are_those_read_one_by_one(mixture: Opened, timeline: Timeline) -> None:
    source = step_source(mixture, timeline, rank=0, world=2)
    with prefetched(source, 2, timeline.total_steps, depth=2) as batches:
        found = list(batches)
    assert [batch.step for batch in found] == list(range(2, timeline.total_steps))
    assert all(np.array_equal(batch.tokens, source.read(batch.step).tokens) for batch in found)


def test_the_prefetching_thread_ends_when_its_reader_stops_early(mixture: Opened, timeline: Timeline) -> None:
    source = step_source(mixture, timeline, rank=0, world=1)
    with prefetched(source, 0, timeline.total_steps, depth=1) as batches:
        next(batches)
    assert "prefetch" not in {thread.name for thread in threading.enumerate()}


def test_what_reading_raises_is_raised_where_the_batch_is_taken(mixture: Opened, timeline: Timeline) -> None:
    source = step_source(mixture, timeline, rank=0, world=1)
    source = replace(source, reader=replace(source.reader, streams={}))
    with prefetched(source, 0, 2) as batches, pytest.raises(KeyError):
        next(batches)
