"""An export appears whole or not at all, takes no directory that is in use, and goes on where it was killed."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.artifact import open_artifact, verify

Export = Callable[..., Any]


@pytest.fixture(scope="module")
def command(sliced: Any, zygote: Any) -> Export:
    def run(kind: str, out: object, *options: object, mixture: object = sliced.published[0].uri, **kill: int) -> Any:
        return zygote.run("export", mixture, "--format", kind, "--out", out, "--workers", "serial", *options, **kill)

    return run


def contents(out: Path) -> dict[str, str]:
    """What lies there but the manifest, which says when it was made."""
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "manifest.json"]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("kind", ["megatron", "parquet"])
def test_it_prints_the_path_and_leaves_nothing_beside_it(command: Export, tmp_path: Path, kind: str) -> None:
    (tmp_path / "out").mkdir()  # an empty directory is taken
    outcome = command(kind, tmp_path / "out")
    assert (outcome.code, outcome.stdout) == (0, f"{tmp_path / 'out'}\n")
    assert verify(tmp_path / "out") > 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not [path for path in (tmp_path / "out").rglob("*") if path.name.startswith(".") or path.suffix == ".tmp"]


@pytest.mark.parametrize("kind", ["megatron", "parquet"])
def test_one_that_is_killed_anywhere_goes_on_to_the_same_export(command: Export, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "out"
    calm = command(kind, out)
    assert calm.code == 0
    expected, calls = contents(out), calm.calls
    identifier = open_artifact(out).manifest.id
    shutil.rmtree(out)
    for kill_at in range(1, calls + 1, max(1, calls // 5)):
        assert command(kind, out, kill_at=kill_at).code == -9
        if out.exists():  # it was killed right after it had been published
            assert verify(out)
        else:
            assert command(kind, out).code == 0
        assert contents(out) == expected
        assert open_artifact(out).manifest.id == identifier
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
        shutil.rmtree(out)


def test_what_was_written_before_a_kill_is_not_written_again(command: Export, tmp_path: Path) -> None:
    calm = command("parquet", tmp_path / "calm")
    assert command("parquet", tmp_path / "out", kill_at=calm.calls // 2).code == -9
    assert command("parquet", tmp_path / "out").calls < calm.calls


def test_another_export_does_not_take_up_what_was_left(command: Export, tmp_path: Path) -> None:
    calm = command("megatron", tmp_path / "calm")
    assert calm.code == 0
    assert command("megatron", tmp_path / "out", kill_at=calm.calls - 2).code == -9
    assert command("parquet", tmp_path / "out").code == 0
    assert not list((tmp_path / "out").rglob("*.bin"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["calm", "out"]


def test_the_same_export_again_is_kept(command: Export, tmp_path: Path) -> None:
    first, again = (command("parquet", tmp_path / "out") for _ in range(2))
    assert (first.stdout, again.code) == (again.stdout, 0)
    assert "re-used" in again.stderr


def test_two_at_once_make_one(sliced: Any, zygote: Any, tmp_path: Path) -> None:
    argv = ("export", sliced.published[0].uri, "--format", "parquet", "--out", tmp_path / "out", "--workers", "serial")
    outcomes = zygote.run_together([argv, argv])
    assert [(outcome.code, outcome.stdout) for outcome in outcomes] == [(0, f"{tmp_path / 'out'}\n")] * 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert verify(tmp_path / "out") > 0


def test_a_directory_in_use_is_refused_and_left_alone(command: Export, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    outcome = command("parquet", tmp_path / "out")
    assert (outcome.code, outcome.stdout) == (2, "")
    assert (
        f"error: --out {tmp_path / 'out'} holds other files; give a directory that is new or empty\n" in outcome.stderr
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.tex"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_another_export_is_not_overwritten(command: Export, tmp_path: Path) -> None:
    assert command("megatron", tmp_path / "out").code == 0
    outcome = command("parquet", tmp_path / "out")
    assert outcome.code == 2
    assert "holds another export, sliced; give a directory that is new, or delete that one" in outcome.stderr


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--join", "much"], "--join: 'much' is not a count"),
        (["--out", "s3://bucket/out"], "--out s3://bucket/out: results are written to a directory on this machine"),
    ],
)
def test_a_wrong_flag_ends_with_2_and_a_line(command: Export, tmp_path: Path, options: list[str], said: str) -> None:
    outcome = command("megatron", tmp_path / "out", *options)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert said in outcome.stderr


def test_what_is_no_mixture_ends_with_2(command: Export, sliced: Any, tmp_path: Path) -> None:
    outcome = command("parquet", tmp_path / "out", mixture=sliced.artifact("tokens", "web").uri)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "is a tokens (web); expected a mixture" in outcome.stderr
    assert not (tmp_path / "out").exists()
