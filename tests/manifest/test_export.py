"""The draft of an export: for one process at a time, and never the one that another is about to publish."""

from __future__ import annotations

import shutil
import threading
from contextlib import ExitStack
from pathlib import Path

from manifest.export import draft, empty


def test_a_process_that_has_published_leaves_the_draft_of_one_that_has_just_begun(tmp_path: Path) -> None:
    with ExitStack() as second:
        with draft(tmp_path / "out") as published:
            (published / "file").touch()
            published.rename(tmp_path / "out")
            begun = second.enter_context(draft(tmp_path / "out"))
        assert begun.is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_one_that_comes_while_another_publishes_waits(tmp_path: Path) -> None:
    """Publishing takes away the hidden files of a draft before it renames it: a lock in one of them would be lost."""
    entered = threading.Event()

    def come() -> None:
        with draft(tmp_path / "out"):
            entered.set()

    second = threading.Thread(target=come)
    with draft(tmp_path / "out") as directory:
        (directory / ".notes").mkdir()
        (directory / "file").touch()
        shutil.rmtree(directory / ".notes")
        second.start()
        assert not entered.wait(0.2)
        directory.rename(tmp_path / "out")
    second.join()
    assert entered.is_set()
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "file"]


def test_what_a_killed_process_left_is_there_until_it_is_emptied(tmp_path: Path) -> None:
    try:
        with draft(tmp_path / "out") as directory:
            (directory / "part").mkdir()
            (directory / "part" / "file").touch()
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    with draft(tmp_path / "out") as directory:
        assert [path.name for path in directory.rglob("*")] == ["part", "file"]
        empty(directory)
        assert not list(directory.iterdir())
