from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.artifact import Opened
from manifest.errors import InputError
from manifest.store import LocalStore
from trainer.launch import Workers, parse_workers

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]


def test_workers_are_processes_or_ray() -> None:
    assert parse_workers("local") == Workers(None, None)
    assert parse_workers("local:3") == Workers(None, 3)
    assert parse_workers("ray") == Workers("ray", None)
    assert parse_workers("ray:2") == Workers("ray", 2)
    assert parse_workers("ray://head:10001") == Workers("ray://head:10001", None)


@pytest.mark.parametrize("text", ["locally", "local:0", "local:x", "slurm:2", "ray:0", ""])
def test_other_workers_are_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(InputError, match="expected local, local:N"):
        parse_workers(text)


@pytest.mark.slow
def test_two_ray_actors_finish_a_run_and_the_ray_they_ran_on_ends(
    tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe
) -> None:
    mixture, out = make_mixture({"main": {"a": 8}}), tmp_path / "out"
    command = ["fit", str(make_recipe()), "--mixture", mixture.uri, "--out", str(out), "--workers", "ray:2"]
    done = subprocess.run(
        [sys.executable, "-m", "trainer.cli", *command], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    record = LocalStore(Path(line).parent).manifest(Path(line).name)
    assert record is not None
    assert record.producer is not None
    assert record.producer.measured["workers"] == 2
