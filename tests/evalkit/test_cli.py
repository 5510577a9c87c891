from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.cli import main
from manifest.artifact import Opened, open_artifact

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def evalkit(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evalkit", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture
def recipe(recipe_file: Callable[[str], Path]) -> Path:
    return recipe_file("name: cli\ntasks: [bits_per_byte]\nlimit: 4")


def test_score_prints_the_report_and_nothing_else(evalkit: Run, recipe: Path, trained: Path, tmp_path: Path) -> None:
    code, out, _ = evalkit("score", recipe, "--run", trained.parent.parent, "--out", tmp_path)
    assert code == 0
    report = open_artifact(out.rstrip("\n"), kind="report")
    assert out == f"{report.uri}\n"
    assert report.manifest.inputs["checkpoint"].name == "tiny/00000011"


def test_compare_to_is_taken_from_the_command_before_the_recipe(
    evalkit: Run, recipe_file: Callable[[str], Path], recipe: Path, untrained: Path, trained: Path, tmp_path: Path
) -> None:
    _, before, _ = evalkit("score", recipe, "--checkpoint", untrained, "--out", tmp_path)
    other = recipe_file("name: cli\ntasks: [bits_per_byte]\nlimit: 4\ncompare_to: /nowhere")
    code, after, _ = evalkit("score", other, "--checkpoint", trained, "--out", tmp_path, "--compare-to", before.strip())
    assert code == 0
    assert open_artifact(after.strip()).manifest.inputs["compared"].id == open_artifact(before.strip()).manifest.id


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--checkpoint", "nowhere"], "nowhere has no manifest.json"),
        (["--run", "nowhere"], "nowhere has no published checkpoints"),
        (["--checkpoint", "nowhere", "--batch-tokens", "many"], "--batch-tokens: 'many' is not a count"),
        (["--checkpoint", "nowhere", "--compare-to", "gone"], "gone has no manifest.json"),
    ],
)
def test_a_wrong_flag_is_exit_code_2_and_a_message(
    evalkit: Run, recipe: Path, tmp_path: Path, arguments: list[str], problem: str
) -> None:
    code, out, err = evalkit("score", recipe, *arguments, "--out", tmp_path)
    assert (code, out) == (2, "")
    assert problem in err


def test_a_mixture_is_no_checkpoint(evalkit: Run, recipe: Path, mixture: Opened, tmp_path: Path) -> None:
    code, _, err = evalkit("score", recipe, "--checkpoint", mixture.uri, "--out", tmp_path)
    assert code == 2
    assert "is a mixture (tiny); expected a checkpoint" in err
