from __future__ import annotations

import json
from pathlib import Path

import pytest

from manifest.errors import InputError, NotAnArtifact
from trainer.run import local_store, read_run, rewind


def test_rewinding_drops_later_steps_and_a_torn_last_line(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    lines = [json.dumps({"step": step, "loss": 1.0 / (step + 1)}) + "\n" for step in range(6)]
    file.write_text("".join(lines) + lines[5][:9])
    rewind(file, 4)
    assert file.read_text() == "".join(lines[:4])
    rewind(file, 0)
    assert file.read_text() == ""


def test_rewinding_a_run_without_metrics_does_nothing(tmp_path: Path) -> None:
    rewind(tmp_path / "metrics.jsonl", 0)
    assert not list(tmp_path.iterdir())


def test_a_run_needs_a_directory() -> None:
    with pytest.raises(InputError, match="found an object store"):
        local_store("s3://bucket/prefix")


def test_a_directory_without_a_run_is_none(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifact, match=r"has no run\.json"):
        read_run(tmp_path)
