"""The files between the gateway and a job."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.jobs.journal import JOURNAL, LOG, Journal, Line, last_lines, read, read_log
from manifest.errors import CorruptArtifact


def test_a_journal_is_read_on_from_where_it_was_left_and_a_half_line_waits(tmp_path: Path) -> None:
    lines = [Line(entry="build-1", at=float(i), note=f"line {i}, ü") for i in range(3)]
    journal = Journal(tmp_path)
    for line in lines:
        journal.write(line)
    whole = (tmp_path / JOURNAL).read_bytes()
    seen: list[Line] = []
    offset = 0
    for end in range(len(whole) + 1):  # as if it were being written a byte at a time
        (tmp_path / JOURNAL).write_bytes(whole[:end])
        found, offset = read(tmp_path, offset)
        seen += found
    assert seen == lines
    assert offset == len(whole)


def test_no_journal_yet_is_no_line(tmp_path: Path) -> None:
    assert read(tmp_path, 0) == ([], 0)


def test_a_line_that_no_job_writes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"entry": "build-1", "at": 1, "shell": "rm"}\n')
    with pytest.raises(CorruptArtifact, match="no job writes"):
        read(tmp_path, 0)


@given(
    text=st.text(st.characters(), max_size=20) | st.sampled_from([r"x\u0000.jsonl", "\0", "\\\0", "\ud800", "\u2028"])
)
def test_any_note_can_be_read_again_and_kept(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    directory = tmp_path_factory.mktemp("journal")
    Journal(directory).write(Line(entry="build-1", at=0.0, note=text))
    (line,), _ = read(directory, 0)
    assert line.note == text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    line = Line(entry="build-1", at=0.0, note="x" * 100)
    journal.write(line)
    size = (tmp_path / JOURNAL).stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, before[1]))  # the next line goes over it
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.write(line)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    journal.write(line)
    assert read(tmp_path, 0)[0] == [line, line]


@pytest.mark.parametrize("limit", range(1, 12))
def test_a_log_in_parts_is_the_whole_log(tmp_path: Path, limit: int) -> None:
    text = "a ü 漢 😀 b\n" * 3
    (tmp_path / LOG).write_text(text, encoding="utf-8")
    parts, offset = [], 0
    while True:
        part, after = read_log(tmp_path, offset, max(limit, 4))
        if after == offset:
            break
        parts.append(part)
        offset = after
    assert "".join(parts) == text


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    (tmp_path / LOG).write_text("".join(f"{i}\n" for i in range(10_000)))
    assert last_lines(tmp_path, 3) == "9997\n9998\n9999"
    assert last_lines(tmp_path / "nowhere", 3) == ""
