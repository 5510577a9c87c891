from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.artifact import Opened, open_streams
from manifest.errors import RecipeError
from manifest.mixture import Mixture
from manifest.store import LocalStore
from trainer.audit import audit
from trainer.data.loader import step_source
from trainer.fit import FitOptions, plan_run
from trainer.launch import Workers
from trainer.run import Run, enter
from trainer.sizes import resolve


@pytest.fixture
def run(
    tmp_path: Path, make_mixture: Callable[..., Opened], make_recipe: Callable[..., Path]
) -> tuple[Path, Run, Opened]:
    mixture = make_mixture({"main": {"a": 6, "b": 3}}, tokens=300)
    store = LocalStore(tmp_path / "out")
    made = plan_run(FitOptions(resolve(make_recipe(), None), mixture.uri, store.uri, Workers(None, 1)), store)
    enter(store, made)
    return store.root / made.path, made, mixture


def test_the_spans_of_a_step_are_the_tokens_that_it_learns_from(run: tuple[Path, Run, Opened]) -> None:
    directory, made, mixture = run
    assert isinstance(mixture.manifest, Mixture)
    streams = open_streams(mixture)
    source = step_source(mixture, made.timeline, rank=0, world=1)
    for step in range(made.timeline.total_steps):
        header, *lines = audit(directory, step)
        assert header.split("\t")[-1] == "document"
        read: list[int] = []
        for line in lines:
            _, view, stream, _, _, first, stop, document = line.split("\t")
            assert document.startswith(f"{stream}/")
            assert view == stream
            read += streams[stream].read(int(first), int(stop) - int(first)).tolist()
        assert read == source.read(step).tokens.ravel().tolist()


def test_a_step_beyond_the_run_is_refused(run: tuple[Path, Run, Opened]) -> None:
    directory, made, _ = run
    with pytest.raises(RecipeError, match=f"has the steps 0 to {made.timeline.total_steps - 1}"):
        list(audit(directory, made.timeline.total_steps))
