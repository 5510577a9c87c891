"""A study carried out by the real service: arm by arm, on where it was, with what failed told."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from served import Served, working
from study_fixtures import PEAK, study_file
from work_fixtures import write_raw

from gateway import cli
from gateway.client import KINDS, Client
from manifest.lineage import lineage, nodes


def test_no_service_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["study", str(study_file(tmp_path)), "--server", "http://127.0.0.1:9"])
    assert ended.value.code == 1
    assert "127.0.0.1:9 does not answer" in capsys.readouterr().err


def run(served: Served, file: Path, *flags: str) -> int:
    words = ["study", str(file), "--raw", str(served.home / "raw"), "--out", str(served.home / "out")]
    with pytest.raises(SystemExit) as ended:
        cli.main([*words, "--server", served.url, *flags])
    return int(str(ended.value.code))


@pytest.mark.slow
def test_a_study_is_carried_out_and_the_same_command_finds_it_done(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    file = study_file(served.home, seeds=[0, 1])
    with working(served):
        assert run(served, file) == 0, capsys.readouterr().err
    out, err = capsys.readouterr()
    assert out == f"{served.home / 'out' / 'study.md'}\n"
    assert "study.md: 2 of 4 arms" in err  # after the first seed
    with Client(served.url) as client:
        told = {entry.request.label for kind in KINDS[1:] for entry in client.list(kind)}
    assert told == {f"peak {peak}, seed {seed}" for peak in ("0.01", "0.001") for seed in (0, 1)}
    text = (served.home / "out" / "study.md").read_text()
    assert text.count("★") == 2  # the note, and one best
    made = json.loads((served.home / "out" / "study.json").read_text())
    assert [cell["seeds"] for cell in made["cells"]] == [[0, 1], [0, 1]]
    best = min(made["cells"], key=lambda cell: cell["figures"]["all"]["value"])
    assert best["best"]
    assert best["labels"] == {"peak": "0.01"}  # a hundredth is not too much for a few steps, a thousandth too little
    assert best["figures"]["all"]["low"] < best["figures"]["all"]["value"] < best["figures"]["all"]["high"]
    assert (served.home / "out" / "study.png").read_bytes().startswith(b"\x89PNG")
    for origin in (origin for cell in made["cells"] for origin in cell["origins"]):
        kinds = {node.kind for node in nodes(lineage(served.home / "store" / origin["report"]))}
        assert {"checkpoint", "mixture", "raw"} <= kinds, "from a figure to raw files"
        assert f"| {origin['checkpoint']} | {origin['report']} |" in text

    assert run(served, file) == 0  # nobody works, and nobody needs to
    assert capsys.readouterr().err.count("runs: 2, 2 of them ended before") == 2
    assert (served.home / "out" / "study.md").read_text() == text


@pytest.mark.slow
def test_what_the_arms_start_from_is_scored_over_their_held_out_text(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    first = study_file(served.home, axes={"peak": {"field": PEAK, "values": [0.01]}})
    with working(served):
        assert run(served, first) == 0, capsys.readouterr().err
        (base,) = (served.home / "store" / "runs").iterdir()
        start = {"train.start_from": f"runs/{base.name}", "train.size": None, "data.name": "other"}
        file = study_file(served.home, name="tuned", baseline=True, best_by="b", set=start)
        assert run(served, file) == 0, capsys.readouterr().err
    out = served.home / "out"
    made = json.loads((out / "study.json").read_text())
    for cell in made["cells"]:
        less = cell["less_baseline"]["all"]
        assert less["low"] < less["value"] < less["high"] < 0  # the base has read little, and the arms read it again
    text = (out / "study.md").read_text()
    assert f"| 0.01 | {made['cells'][0]['less_baseline']['all']['value']:+.4f} [" in text
    assert "reports of the baseline: 1" in capsys.readouterr().err
    best = min(made["cells"], key=lambda cell: cell["figures"]["b"]["value"])
    assert best["best"]
    assert "the best of its line by b." in text

    assert run(served, study_file(served.home, name="tuned", best_by="c", set=start)) == 2
    assert "best_by: no held-out text of a source 'c'; of a, b" in capsys.readouterr().err


def test_an_arm_that_failed_is_told_with_its_log_and_tried_again_only_when_asked(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    holes = {"sources": {"a": {"files": "a/*", "text": "no_such_field"}, "b": {"files": "b/*"}}}
    file = study_file(served.home, set={f"data.{name}": value for name, value in holes.items()})
    with working(served):
        assert run(served, file) == 1
    said = capsys.readouterr().err
    assert "no_such_field" in said
    assert "winnow logs build-" in said
    assert run(served, file) == 1  # told again, nobody having worked
    assert "builds: 1, 1 of them ended before" in capsys.readouterr().err


@pytest.mark.slow
def test_an_arm_that_fails_leaves_the_others_and_is_tried_again_only_when_asked(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    axes = {"peak": {"field": PEAK, "values": [0.01, 1e30]}}  # the second is no number after a step
    file = study_file(served.home, axes=axes)
    out = served.home / "out"
    with working(served):
        assert run(served, file) == 1
    said = capsys.readouterr().err
    assert "1 of 2 arms failed" in said
    assert "peak 1e+30, seed 0: run-" in said
    cells = json.loads((out / "study.json").read_text())["cells"]
    assert [(cell["labels"]["peak"], cell["best"], len(cell["failures"])) for cell in cells] == [
        ("0.01", True, 0),
        ("1e+30", False, 1),
    ]
    assert "Failed" in (out / "study.html").read_text()
    assert run(served, file) == 1  # told again, nobody having worked
    assert "runs: 2, 2 of them ended before" in capsys.readouterr().err
    with working(served):
        assert run(served, file, "--retry") == 1
    assert "runs: 2, 1 of them ended before" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_that_was_interrupted_goes_on_with_the_same_command(
    served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    file = study_file(served.home)
    command = [sys.executable, "-m", "gateway.cli", "study", str(file), "--raw", str(served.home / "raw")]
    with working(served):
        asked = subprocess.Popen([*command, "--server", served.url], stderr=subprocess.PIPE, text=True)
        assert asked.stderr is not None
        told = []
        for line in asked.stderr:
            told.append(line)
            if line.startswith("runs: 2, 0 of them"):
                asked.send_signal(signal.SIGINT)
        assert asked.wait() == 130
        assert re.search(rf"2 runs go on.* `winnow cancel run-\S+ run-\S+ --server={served.url}` ends", "".join(told))
        assert run(served, file) == 0, capsys.readouterr().err
    made = json.loads((served.home / "out" / "study.json").read_text())
    assert [cell["seeds"] for cell in made["cells"]] == [[0], [0]]


def test_a_service_that_wants_a_key_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_raw(tmp_path / "raw")
    served = Served(tmp_path, keys=True)
    try:
        assert run(served, study_file(tmp_path)) == 2
    finally:
        served.close()
    assert "key" in capsys.readouterr().err
