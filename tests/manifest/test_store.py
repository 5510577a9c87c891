from __future__ import annotations

import errno
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from manifest.artifact import open_artifact, verify
from manifest.errors import CorruptArtifact, InputError
from manifest.store import LocalStore, open_store

if TYPE_CHECKING:
    from tests.manifest.conftest import Builder

FILES = {"a.bin": b"first", "b.bin": b"second"}
WRITES = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "fcntl.flock", "shutil.rmtree"})


def publish_and_die_at(build: Builder, write: int) -> bool:
    """Publishes in a child process that ends itself right before its `write`-th call that changes the disk.

    Returns whether it ended before it was done.
    """
    child = os.fork()
    if child == 0:
        calls = 0

        def count(event: str, _: object) -> None:
            nonlocal calls
            calls += event in WRITES
            if calls == write:
                os._exit(9)

        sys.addaudithook(count)
        build.artifact("deduped/c4", FILES)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def test_a_publish_killed_at_any_write_shows_all_or_nothing_and_can_be_repeated(build: Builder) -> None:
    write, nothing_yet = 1, 0
    while publish_and_die_at(build, write):
        present = build.store.manifest("deduped/c4")
        nothing_yet += present is None
        assert build.store.list("deduped") == ([] if present is None else ["c4"])
        if present is not None:
            verify(build.store.where("deduped/c4"))
        assert build.artifact("deduped/c4", FILES).manifest.id
        assert verify(build.store.where("deduped/c4")) == 11
        shutil.rmtree(build.store.where("deduped"))
        write += 1
    assert nothing_yet > 5, "the kill came at many different writes"


def test_what_a_killed_attempt_finished_is_still_in_the_draft(build: Builder) -> None:
    with build.store.draft("deduped/c4") as draft:
        (draft / "a.bin").write_bytes(b"done")
    with build.store.draft("deduped/c4") as draft:
        assert (draft / "a.bin").read_bytes() == b"done"


def test_publishing_the_same_again_keeps_what_is_there(build: Builder) -> None:
    first = build.artifact("deduped/c4", FILES)
    changed = os.stat(first.uri + "/manifest.json").st_mtime_ns
    assert build.artifact("deduped/c4", FILES).manifest.id == first.manifest.id
    assert os.stat(first.uri + "/manifest.json").st_mtime_ns == changed


def test_publishing_something_else_in_its_place_is_refused(build: Builder) -> None:
    first = build.artifact("deduped/c4", FILES)
    with pytest.raises(CorruptArtifact, match="not deterministic"):
        build.artifact("deduped/c4", {"a.bin": b"other"})
    assert open_artifact(first.uri).manifest == first.manifest


def test_files_without_a_manifest_are_not_overwritten(build: Builder) -> None:
    mine = Path(build.store.where("deduped/c4"))
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(CorruptArtifact, match="move it away"):
        build.artifact("deduped/c4", FILES)
    assert (mine / "notes.txt").read_text() == "mine"
    shutil.rmtree(mine)
    assert build.artifact("deduped/c4", FILES).manifest.id


def test_a_full_disk_is_not_mistaken_for_another_writer(build: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="no space"):
        build.artifact("deduped/c4", FILES)
    monkeypatch.undo()
    assert build.artifact("deduped/c4", FILES).manifest.id


def test_notes_in_a_draft_are_not_published(build: Builder) -> None:
    with build.store.draft("deduped/c4") as draft:
        (draft / ".progress").write_text("half")
        (draft / ".work").mkdir()
    built = build.artifact("deduped/c4", {})
    assert sorted(path.name for path in Path(built.uri).iterdir()) == ["manifest.json", "part.bin"]


def test_drafts_whose_names_share_a_stem_do_not_wait_for_each_other(build: Builder) -> None:
    with build.store.draft("runs/btlm-0.1") as one, build.store.draft("runs/btlm-0.2") as two:
        assert one != two


def test_only_published_directories_are_listed_and_all_of_them(build: Builder) -> None:
    for name in ("b", "a"):
        build.artifact(f"deduped/{name}", FILES)
    Path(build.store.where("deduped/unfinished")).mkdir()
    assert build.store.list("deduped") == ["a", "b"]
    assert build.store.list("nowhere") == []
    assert list(build.store.folders("deduped")) == ["a", "b", "unfinished"]


def test_an_artifact_that_lies_directly_under_the_root_is_found() -> None:
    assert open_store("/").uri == "/"
    assert isinstance(open_store("file:///tmp/x"), LocalStore)


def test_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'ftp' is unknown; give a local path or s3://"):
        open_store("ftp://host/x")


def test_an_empty_path_is_not_the_root_directory() -> None:
    with pytest.raises(InputError, match="empty"):
        open_store("")


def test_a_store_behind_a_symbolic_link_is_the_store_itself(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert open_store(tmp_path / "link").uri == open_store(tmp_path / "real").uri
