"""The command prints the path it published and nothing else on stdout, and its exit code says whose fault it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifest.artifact import open_artifact

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, write_jsonl: Make, words: Make, recipe: Make) -> Path:
    """recipe.yaml and raw/ in a directory."""
    place = tmp_path_factory.mktemp("cli")
    for source in "ab":
        texts = [" ".join(words(ord(source) * 100 + i, 30)) for i in range(5)]
        write_jsonl(place / "raw" / source / "x.jsonl", [{"text": text} for text in texts])
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe().model_dump(mode="json", exclude_none=True)))
    return place


@pytest.fixture(scope="module")
def command(place: Path, zygote: Any) -> Make:
    def run(*options: object, raw: object = place / "raw", recipe: object = place / "recipe.yaml") -> Any:
        return zygote.run("build", recipe, "--raw", raw, "--out", place / "store", *options)

    return run


def test_a_build_prints_one_line_which_is_the_mixture(command: Make) -> None:
    first, again = command("--workers", "serial"), command("--workers", "serial")
    assert (first.code, again.code) == (0, 0)
    assert first.stdout == again.stdout
    assert first.stdout.count("\n") == 1
    assert open_artifact(first.stdout.strip(), "mixture").manifest.name == "small"


def test_a_stage_of_two_artifacts_prints_two_lines(command: Make) -> None:
    outcome = command("--workers", "serial", "--until", "documents")
    assert [Path(line).parent.name for line in outcome.stdout.splitlines()] == ["documents", "documents"]


def test_a_dry_run_prints_nothing_on_stdout(command: Make, place: Path, tmp_path: Path) -> None:
    outcome = command("--dry-run", "--out", tmp_path / "store")
    assert (outcome.code, outcome.stdout) == (0, "")
    assert "documents/a: would be built" in outcome.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--until", "tokns"], "--until tokns: no such stage; did you mean 'tokens'"),
        (["--workers", "eight"], "--workers eight: expected serial, local:N"),
        (["--out", "gopher://host/store"], "the scheme 'gopher' is unknown"),
    ],
)
def test_a_wrong_flag_ends_with_2_and_a_line(command: Make, options: list[str], said: str) -> None:
    outcome = command(*options)
    assert (outcome.code, outcome.stdout) == (2, "")
    (line,) = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert said in line
    assert "Traceback" not in outcome.stderr


def test_a_wrong_recipe_ends_with_2(command: Make, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: small\nsorces: {}\n")
    outcome = command(recipe=tmp_path / "recipe.yaml")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "unknown key 'sorces'; did you mean 'sources'?" in outcome.stderr


def test_unreadable_raw_files_end_with_2_and_publish_nothing(command: Make, tmp_path: Path) -> None:
    for source in "ab":
        (tmp_path / "raw" / source).mkdir(parents=True)
        (tmp_path / "raw" / source / "x.jsonl").write_text("not json\n" * 3)
    outcome = command("--workers", "serial", "--out", tmp_path / "store", raw=tmp_path / "raw")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "source 'a': 3 of 3 records cannot be read" in outcome.stderr
    assert [path.name for path in (tmp_path / "store").glob("[!.]*")] == []


def test_a_raw_directory_that_is_not_there_ends_with_2(command: Make, tmp_path: Path) -> None:
    outcome = command("--workers", "serial", raw=tmp_path / "none")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert f"no file matches 'a/*' under {tmp_path / 'none'}" in outcome.stderr
