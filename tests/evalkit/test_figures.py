from __future__ import annotations

import math
from pathlib import Path

from evalkit.checkpoint import open_subject
from evalkit.figures import phases, uniform_bits_per_byte
from manifest.artifact import Opened
from manifest.mixture import Mixture
from trainer.continuation import changed
from trainer.recipe import PhaseRecipe


def test_phases_say_what_was_read_and_how_far_the_run_is(mixture: Opened, trained: Path) -> None:
    record = mixture.manifest
    assert isinstance(record, Mixture)
    subject = open_subject(trained)
    short, long = phases(subject.record)
    assert (short.name, short.seq_len, long.name, long.seq_len) == ("short", 16, "long", 32)
    assert short.done + long.done == min(11, subject.record.timeline.total_steps)
    assert short.done == min(11, short.steps)
    assert (short.tokens, long.tokens) == tuple(phase.blocks * 64 for phase in record.phases)
    assert math.isclose(sum(short.draws.values()), 1)
    assert list(long.draws) == ["code"]


def test_a_phase_in_which_the_mixture_changed_is_shown_in_parts(mixture: Opened, trained: Path) -> None:
    record, old = open_subject(trained).record, mixture.manifest
    assert isinstance(old, Mixture)
    new = old.model_copy(update={"name": "new"}).identified()
    fields = {"seq_len": 16, "tokens_per_step": 16, "schedule": {"shape": "constant", "peak": 0.1}}
    recipe = dict.fromkeys(("short", "long"), PhaseRecipe.model_validate(fields))
    timeline = changed(record.timeline, 2, new, recipe, {old.id: old})
    before, after, long = phases(record.model_copy(update={"timeline": timeline}))
    whole, _ = phases(record)
    assert (before.name, after.name, long.name) == ("short", "short, from step 2", "long")
    assert before.steps + after.steps == whole.steps
    assert before.tokens + after.tokens == whole.tokens
    assert before.done + after.done == whole.done


def test_the_uniform_score_is_log2_of_the_vocabulary_per_token() -> None:
    sources = {"a": {"bytes": 300, "tokens": 100}, "b": {"bytes": 100, "tokens": 100}}
    found = uniform_bits_per_byte({"subject": {"vocabulary": 320}, "sources": sources})
    assert math.isclose(found, math.log2(320) * 200 / 400)
