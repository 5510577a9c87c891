"""A stage is done once per request; what a killed attempt noted is taken up, unless it may be lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dataproc import stage
from dataproc.documents import ShardWriter
from dataproc.stage import Build, Draft, Made, Request, references, shard_files
from dataproc.workers import Serial
from manifest.artifact import Opened
from manifest.errors import CorruptArtifact
from manifest.record import Model
from manifest.store import LocalStore

SCHEMA = pa.schema([("n", pa.int64())])


class Squared(Model):
    n: int


class Killed(BaseException):
    """Ends an attempt as a signal would: nobody handles it."""


@pytest.fixture
def build(tmp_path: Path) -> Build:
    return Build(LocalStore(tmp_path / "store"), Serial())


def request(name: str = "squares", inputs: dict[str, Any] | None = None, **config: Any) -> Request:
    return Request("numbers", name, "square/1", config, inputs or {})


def squares(called: list[int], dies_at: int = -1) -> Callable[[Draft], Made]:
    """Squares of 0 … 4, one task each; leaves scratch files and unlisted ones."""

    def task(n: int) -> Squared:
        if n == dies_at:
            raise Killed
        called.append(n)
        return Squared(n=n * n)

    def make(draft: Draft) -> Made:
        done = Serial().map(task, range(5), result=Squared, notes=draft.notes / "squares", label="")
        (draft.scratch / "file").write_text("scratch")
        (draft.path / "half-written.tmp").write_text("unlisted")
        writer = ShardWriter(draft.path, "squares", SCHEMA)
        writer.write(pa.table({"n": [d.n for d in done]}))
        return Made(writer.close(), {"documents": len(done)})

    return make


def attempt(build: Build, called: list[int], dies_at: int) -> None:
    with pytest.raises(Killed):
        build.make(request(), squares(called, dies_at))


def test_a_published_artifact_holds_its_shards_and_nothing_else(build: Build) -> None:
    made = build.make(request(), squares([]))
    assert isinstance(made, Opened)
    assert {p.name for p in made.directory.iterdir()} == {"manifest.json", "squares-00000.parquet"}
    assert [file.name for file in shard_files(made, "squares")] == ["squares-00000.parquet"]
    assert shard_files(made, "quarantine") == []


def test_the_same_request_is_done_once(build: Build) -> None:
    called: list[int] = []
    first, second = (build.make(request(), squares(called)) for _ in range(2))
    assert first == second
    assert called == [0, 1, 2, 3, 4]


def test_another_config_or_input_is_another_artifact(build: Build) -> None:
    plain = build.make(request(), squares([]))
    others = [build.make(request(threshold=0.8), squares([])), build.make(request(inputs={"x": plain}), squares([]))]
    assert len({item.uri for item in (plain, *others) if isinstance(item, Opened)}) == 3


def test_a_killed_attempt_is_taken_up_where_it_was(build: Build) -> None:
    called: list[int] = []
    attempt(build, called, dies_at=3)
    build.make(request(), squares(called))
    assert called == [0, 1, 2, 3, 4]


def test_what_was_noted_before_the_machine_was_started_is_done_again(
    build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(stage, "BOOT", boot)
    called: list[int] = []
    boot.write_text("first")
    attempt(build, called, dies_at=3)
    attempt(build, called, dies_at=4)
    boot.write_text("second")
    build.make(request(), squares(called))
    assert called == [0, 1, 2, 3, 0, 1, 2, 3, 4]


def test_an_attempt_that_died_while_cleaning_up_is_done_again(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(path: Path) -> None:
        raise Killed

    called: list[int] = []
    monkeypatch.setattr(stage.shutil, "rmtree", die)
    with pytest.raises(Killed):
        build.make(request(), squares(called))
    monkeypatch.undo()
    made = build.make(request(), squares(called))
    assert isinstance(made, Opened)
    assert called == [0, 1, 2, 3, 4] * 2


def test_a_dry_build_says_what_it_would_do_and_does_nothing(build: Build, tmp_path: Path) -> None:
    dry = Build(build.store, Serial(), dry=True)
    planned = dry.make(request(), squares([]))
    assert dry.make(request("next", {"numbers": planned}), squares([])) == stage.Planned("numbers", "next")
    assert not (tmp_path / "store").exists()
    made = build.make(request(), squares([]))
    assert dry.make(request(), squares([])) == made


def test_a_shard_of_another_size_is_refused(build: Build) -> None:
    made = build.make(request(), squares([]))
    assert isinstance(made, Opened)
    (made.directory / "squares-00000.parquet").write_bytes(b"short")
    with pytest.raises(CorruptArtifact, match="has 5 bytes; the manifest says"):
        build.make(request(), squares([]))


def test_inputs_are_referred_to_from_where_the_artifact_lies(build: Build) -> None:
    made = build.make(request(), squares([]))
    found = references(
        {"numbers": made, "raw": stage.Raw("a/x.jsonl", "0" * 64, "/raw/a/x.jsonl")}, build.store.where("b/c")
    )
    assert isinstance(made, Opened)
    assert found["numbers"].uri == f"../../numbers/{made.directory.name}"
    assert (found["raw"].uri, found["raw"].id) == ("/raw/a/x.jsonl", "0" * 64)
