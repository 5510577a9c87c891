from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.checkpoint import open_subject
from evalkit.cli import main
from evalkit.positions import trained_length
from evalkit.texts import long_texts
from manifest.artifact import Opened

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def positions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Runs `evalkit positions` in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["evalkit", "positions", "--out", str(tmp_path / "out"), *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def finished(mixture: Opened, checkpoint_of: Callable[..., Path], untrained: Path) -> Path:
    """The end of a run of windows of 16 and then of 32."""
    steps = open_subject(untrained).record.timeline.total_steps
    return checkpoint_of(mixture, steps, run="finished", seed=7)


def test_what_was_trained_is_the_longest_window_of_the_phases_begun(
    untrained: Path, trained: Path, finished: Path
) -> None:
    assert [trained_length(open_subject(path).record) for path in (untrained, trained, finished)] == [16, 16, 32]


def test_windows_are_whole_and_begin_with_the_end_of_text(finished: Path) -> None:
    subject = open_subject(finished)
    texts = long_texts(subject, 40, limit=None, windows=3)
    assert texts.tokens.shape == (len(texts.document), 40)
    first_W = [index for index, number in enumerate(texts.document) if number not in texts.document[:index]]
    assert set(texts.tokens[first_W, 0]) == {subject.mixture_record.tokenizer.end_of_text}
    assert len(first_W) == texts.documents == sum(texts.sources.values())


def test_a_limit_takes_documents_of_each_source(finished: Path) -> None:
    assert long_texts(open_subject(finished), 40, limit=2, windows=1).sources["web"] == 2


def test_curves_of_two_checkpoints_plain_and_interpolated(
    positions: Run, untrained: Path, finished: Path, tmp_path: Path
) -> None:
    code, out, _ = positions(f"before={untrained}", finished, "--lengths", "64,16,32", "--interpolate")
    assert (code, out) == (0, f"{tmp_path / 'out' / 'positions.json'}\n")
    found = json.loads(Path(out.strip()).read_text())
    assert [(c["checkpoint"], c["length"], c["scale"]) for c in found["curves"]] == [
        ("before", 64, 1), ("before", 32, 2), ("before", 64, 4), ("finished", 64, 1), ("finished", 64, 2),
    ]  # fmt: skip
    assert [len(c["losses"]) for c in found["curves"]] == [5, 3, 5, 5, 5]
    assert (tmp_path / "out" / "positions.png").read_bytes().startswith(b"\x89PNG")
    assert "| 16–23 |" in (tmp_path / "out" / "positions.md").read_text()


def test_lengths_are_multiples_of_the_longest_trained_one_if_none_are_given(positions: Run, finished: Path) -> None:
    code, out, _ = positions(finished, "--json")
    assert (code, json.loads(out)["lengths"]) == (0, [32, 64, 128])


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--lengths", "4k"], "has no document of 4,000 tokens; the longest of its"),
        (["--lengths", "1"], "--lengths 1: expected at least 2"),
        (["--lengths", "16,"], "--lengths: '' is not a count"),
        (["--lengths", "32", "--interpolate"], "no longer than the 32 that were trained"),
        (["--windows", "0"], "--windows 0: expected at least 1"),
        (["--out", "s3://bucket/positions"], "results are written to a directory on this machine"),
    ],
)
def test_a_wrong_flag_is_exit_code_2_and_a_message(
    positions: Run, finished: Path, arguments: list[str], problem: str
) -> None:
    code, out, err = positions(finished, *arguments)
    assert (code, out) == (2, "")
    assert problem in err


def test_two_checkpoints_of_one_run_need_names(positions: Run, untrained: Path, trained: Path) -> None:
    code, _, err = positions(untrained, trained)
    assert code == 2
    assert f"there is another checkpoint named tiny; give each a name, such as tiny-11={trained}" in err


def test_checkpoints_of_other_documents_are_refused(
    positions: Run,
    finished: Path,
    mixture_of: Callable[..., Opened],
    checkpoint_of: Callable[..., Path],
    tmp_path: Path,
) -> None:
    other = checkpoint_of(mixture_of(tmp_path, documents=30), 11)
    code, _, err = positions(f"one={finished}", f"other={other}")
    assert code == 2
    assert "other and one have different held-out documents" in err


def test_rope_has_no_slopes_to_interpolate(positions: Run, mixture: Opened, checkpoint_of: Callable[..., Path]) -> None:
    rope = checkpoint_of(mixture, 12, run="rope", position="rope")
    code, _, err = positions(rope, "--interpolate")
    assert code == 2
    assert "rope has `position: rope`, and interpolation is of ALiBi's slopes" in err


def test_learned_positions_end_where_the_table_ends(
    positions: Run, mixture: Opened, checkpoint_of: Callable[..., Path]
) -> None:
    learned = checkpoint_of(mixture, 12, run="learned", position="learned", max_positions=40)
    code, _, err = positions(learned, "--lengths", "32,42")
    assert code == 2
    assert "--lengths 42: learned has learned 40 positions, and knows none beyond them; give lengths up to 41" in err
    assert positions(learned, "--lengths", "32,41")[0] == 0
