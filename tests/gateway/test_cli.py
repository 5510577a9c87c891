"""`winnow` as a user types it, against the real service: one line on stdout, the rest on stderr, and an exit code."""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.cells import cell_len
from rich.console import Console
from served import Served, serving, working
from tests.commands import Ended, ended
from work_fixtures import data_recipe

from gateway.cli import main
from gateway.client import Client
from gateway.commands import screen
from gateway.commands.connection import again, connected
from gateway.commands.look import ENTRY_COLUMNS, entry_lines, entry_row, print_entries, print_mixtures
from gateway.commands.screen import table_lines
from gateway.commands.submit import place_of, read_data_recipe, read_recipe, read_sizes
from gateway.commands.watch import Watch
from gateway.failures import Unreachable
from gateway.ledger import keys
from gateway.messages import Build, BuildRequest, Event, Failure, FieldError, Mixture, RunRequest
from manifest.errors import InputError
from manifest.progress import Progress

HOME = Path(__file__).parents[2]
NOW = datetime.now(UTC)
REQUEST = BuildRequest(recipe={"name": "tiny"}, raw="raw")
BUILD = Build(id="build-0654f0c2a31b7e9a01", name="tiny", state="queued", created=NOW, created_by="me", request=REQUEST)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The service with its queue at work, over raw files; recipe.yaml beside them."""
    home = tmp_path_factory.mktemp("cli")
    with serving(home) as started, working(started):
        yield started


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Served]:
    """The service, where nothing is carried out."""
    with serving(tmp_path) as started:
        yield started


def start(served: Served, *words: object, **more: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "WINNOW_SERVER": served.url, "WINNOW_KEY": "", "PYTHONPATH": "", "COLUMNS": "80"}
    return subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", *map(str, words)],
        env=environment,
        cwd=served.home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


def run(served: Served, *words: object) -> Ended:
    return ended(main, *words, cwd=served.home, env={"WINNOW_SERVER": served.url, "WINNOW_KEY": ""})


def recipe_file(served: Served, name: str = "tiny", **overrides: Any) -> Path:
    file = served.home / f"{name}.yaml"
    file.write_text(yaml.safe_dump(data_recipe(name, **overrides)))
    return file


def test_a_watched_build_prints_the_path_of_its_mixture_and_nothing_else(served: Served) -> None:
    file = recipe_file(served)
    process = start(served, "submit", "build", file.name, "--raw", "raw", "--watch")
    stdout, stderr = process.communicate(timeout=120)
    done = Ended(process.returncode, stdout, stderr)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"mixtures/tiny-[0-9a-f]+\n", done.stdout)
    build = re.match(r"(build-\w+): queued\n", done.stderr)
    assert build is not None
    assert f"{build[1]}: succeeded" in done.stderr
    assert "\x1b" not in done.stderr

    again = run(served, "submit", "build", file, "--raw", served.home / "raw", "--watch")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert again.stderr == f"the same build as {build[1]}, which has succeeded\n"

    path = done.stdout.strip()
    assert run(served, "watch", build[1]).stdout == done.stdout
    assert path in run(served, "show", build[1]).stdout
    assert path in run(served, "ls", "mixtures").stdout
    assert json.loads(run(served, "show", path, "--json").stdout)["manifest"]["name"] == "tiny"
    tree = run(served, "lineage", path).stdout
    assert tree.startswith("mixture tiny ")
    assert "raw " in tree
    assert json.loads(run(served, "lineage", path, "--json").stdout)["kind"] == "mixture"
    assert "no mixture trains on this document" in run(served, "exposure", "a/nobody").stdout
    followed = run(served, "logs", build[1], "--follow")
    assert followed.returncode == 0
    assert followed.stdout == run(served, "logs", build[1]).stdout != ""


def test_a_build_that_its_data_refuse_exits_with_2_and_says_why(served: Served) -> None:
    broken = served.home / "raw" / "broken"
    broken.mkdir()
    (broken / "0.jsonl").write_text("this is no json\n" * 50)
    sources = {"broken": {"files": "broken/*"}}
    file = recipe_file(served, "refused", sources=sources, phases={"only": {"epochs": {"broken": 1}}})
    done = run(served, "submit", "build", file, "--raw", "raw", "--watch")
    assert (done.returncode, done.stdout) == (2, "")
    failed = re.search(r"^error: (build-\w+) failed: source 'broken': 50 of 50", done.stderr, re.MULTILINE)
    assert failed is not None, done.stderr
    assert done.stderr.count("50 of 50") == 1
    assert run(served, "watch", failed[1]).returncode == 2
    assert "failure" in run(served, "show", failed[1]).stdout


def test_a_submission_prints_the_id(idle: Served) -> None:
    file = recipe_file(idle)
    done = run(idle, "submit", "build", file, "--raw", "raw", "--label", "of today")
    assert (done.returncode, done.stderr) == (0, f"{done.stdout.strip()}: queued\n")
    assert "(of today)" in run(idle, "ls", "builds").stdout
    assert "(of today)" in run(idle, "show", done.stdout.strip()).stdout
    again = run(idle, "submit", "build", file, "--raw", "raw")
    assert again.stdout == done.stdout
    assert again.stderr == f"the same build as {done.stdout.strip()}, which is queued\n"
    as_json = run(idle, "submit", "build", file, "--raw", "raw", "--json")
    assert as_json.stdout.count("\n") == 1
    assert json.loads(as_json.stdout)["id"] == done.stdout.strip()


def test_a_dry_run_shows_the_plan_and_queues_nothing(idle: Served) -> None:
    file = recipe_file(idle)
    done = run(idle, "submit", "build", file, "--raw", "raw", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.search(r"^  a, 1 files +\S+ raw bytes +\S+ documents +\S+ tokens$", done.stdout, re.MULTILINE)
    assert "warning: tokens are estimated" in done.stderr
    as_json = run(idle, "submit", "build", file, "--raw", "raw", "--dry-run", "--json")
    assert set(json.loads(as_json.stdout)["sources"]) == {"a", "b"}
    assert json.loads(run(idle, "ls", "--json").stdout) == []


def test_cancel_does_what_it_can_and_tells_what_it_cannot(idle: Served) -> None:
    first, second = (
        run(idle, "submit", "build", recipe_file(idle, name), "--raw", "raw").stdout.strip() for name in "xy"
    )
    done = run(idle, "cancel", first, "build-00", second)
    assert (done.returncode, done.stdout) == (2, f"{first}  cancelled\n{second}  cancelled\n")
    assert "error: there is no build build-00" in done.stderr
    watched = run(idle, "watch", first)
    assert (watched.returncode, watched.stdout) == (1, "")
    assert watched.stderr == f"error: {first} was cancelled; `winnow retry {first}` queues it again\n"
    assert run(idle, "retry", first).stdout == f"{first}  queued\n"
    assert run(idle, "retry", first).returncode == 2
    assert run(idle, "logs", first).stderr == f"{first} has no log yet\n"
    states = {entry["id"]: entry["state"] for entry in json.loads(run(idle, "ls", "--json").stdout)}
    assert states == {first: "queued", second: "cancelled"}
    only = run(idle, "ls", "builds", "--state", "cancelled", "--limit", "1").stdout
    assert second in only
    assert first not in only


def test_ctrl_c_ends_the_watching_and_not_the_work(idle: Served) -> None:
    build = run(idle, "submit", "build", recipe_file(idle), "--raw", "raw").stdout.strip()
    process = start(idle, "watch", build, "--server", idle.url)
    assert process.stderr is not None
    assert process.stderr.readline() == f"{build}: queued\n"
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=20)
    assert (process.returncode, stdout) == (130, "")
    assert f"{build} goes on" in stderr
    assert f"winnow watch {build} --server={idle.url}" in stderr
    assert f"winnow cancel {build} --server={idle.url}" in stderr
    assert "Traceback" not in stderr
    with Client(idle.url) as client:
        assert client.get(build).state == "queued"


def test_a_watch_outlives_a_restart_of_the_service(idle: Served) -> None:
    build = run(idle, "submit", "build", recipe_file(idle), "--raw", "raw").stdout.strip()
    process = start(idle, "watch", build)
    assert process.stderr is not None
    process.stderr.readline()
    idle.stop()
    time.sleep(1.5)
    idle.start()
    with Client(idle.url) as client:
        client.cancel(build)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert stderr.count("waiting for it to come back") == 1
    assert f"{build}: cancelled" in stderr


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = Served(tmp_path, keys=True)
    try:
        with served.database.write() as session:
            key = keys.add(session, 0.0, "me", ["read"])
        (tmp_path / "key").write_text(key + "\n")
        refused = run(served, "ls")
        assert refused.returncode == 2
        assert "an API key is needed" in refused.stderr
        assert run(served, "ls", "--key-file", "key").returncode == 0
        missing = run(served, "ls", "--key-file", "nowhere")
        assert (missing.returncode, missing.stderr.count("\n")) == (2, 1)
        monkeypatch.setenv("WINNOW_SERVER", served.url)
        monkeypatch.setenv("WINNOW_KEY", key)
        with connected(argparse.Namespace(server=None, key_file=None)) as client:
            assert list(client.list("build")) == []
        denied = run(served, "submit", "build", recipe_file(served), "--raw", "raw", "--key-file", "key")
        assert denied.returncode == 2
        assert key not in denied.stderr
    finally:
        served.close()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["submit", "build", "none.yaml", "--raw", "raw"], "none.yaml: "),
        (["submit", "build", "tiny.yaml", "--raw", "raw", "--workers", "0"], "--workers 0: "),
        (["submit", "build", "tiny.yaml", "--raw", "raw", "--until", "tokns"], "did you mean 'tokens'"),
        (["submit", "build", "tiny.yaml", "--raw", "/etc"], "raw: "),
        (["submit", "run", "tiny.yaml", "--mixture", "/x"], "--mixture /x: expected a path in the store"),
        (["submit", "run", "tiny.yaml", "--mixture", "x", "--tokens", "lots"], "--tokens lots: 'lots' is not a count"),
        (["submit", "report", "tiny.yaml", "--checkpoint", "x"], "error: "),
        (["watch", "mixtures/x"], "not the id of a build"),
        (["show", "mixtures/none"], "there is no artifact"),
        (["lineage", "none"], "there is no artifact"),
        (["ls", "--limit", "0"], "--limit"),
        (["ls", "--server", "here"], "--server 'here': expected a URL"),
    ],
)
def test_what_the_user_got_wrong_exits_with_2(served: Served, words: list[str], said: str) -> None:
    recipe_file(served)
    done = run(served, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_service_that_is_not_there_exits_with_1(tmp_path: Path) -> None:
    done = ended(main, "ls", "--server", "http://127.0.0.1:1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "gateway serve" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "line 1"),
        ("a: 1\nb: 2\na: 3\n", "line 3"),
        ("- 1", "found list at the top"),
        ("since: 2026-01-02", "put it in quotes"),
        ("share: .nan", "put it in quotes"),
        ("\x00", "not valid YAML"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=re.escape(str(file))) as refused:
        read_recipe(file)
    assert said in str(refused.value)


def test_sizes_lie_beside_the_recipe_or_beside_its_directory(tmp_path: Path) -> None:
    recipe = tmp_path / "demo" / "train.yaml"
    recipe.parent.mkdir()
    assert read_sizes(None, recipe) is None
    (tmp_path / "sizes.yaml").write_text("shared: {tiny: {layers: 1}}")
    assert read_sizes(None, recipe) == {"shared": {"tiny": {"layers": 1}}}
    (recipe.parent / "sizes.yaml").write_text("shared: {tiny: {layers: 2}}")
    assert read_sizes(None, recipe) == {"shared": {"tiny": {"layers": 2}}}
    assert read_sizes(tmp_path / "sizes.yaml", recipe) == {"shared": {"tiny": {"layers": 1}}}
    demo = HOME / "recipes" / "demo" / "train.yaml"
    RunRequest(recipe=read_recipe(demo), mixture="mixtures/x", sizes=read_sizes(None, demo))


def test_raw_files_of_this_machine_are_named_absolutely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "raw").mkdir()
    assert place_of("raw") == str(tmp_path / "raw")
    assert place_of("elsewhere/raw") == "elsewhere/raw"
    assert place_of("s3://bucket/raw") == "s3://bucket/raw"


def events(*said: Any) -> Iterator[Event]:
    """What a running entry says: progress, or a note."""
    for seq, one in enumerate(said, 1):
        fields = {"note": one} if isinstance(one, str) else {"progress": one}
        kind: Any = "note" if isinstance(one, str) else "progress"
        yield Event(seq=seq, at=NOW, type=kind, state="running", **fields)


def step(stage: str, done: int, left_s: float | None = None) -> Progress:
    return Progress(stage=stage, done=done, total=40, unit="tasks", left_s=left_s)


def test_elsewhere_than_on_a_terminal_a_stage_says_little() -> None:
    out = io.StringIO()
    with Watch("build-01", Console(file=out, soft_wrap=True)) as shown:
        for event in events(step("a", 0), step("a", 1, 90.0), "look \x1b[2J[red]here", step("b", 2, 600.0)):
            shown.event(event)
        shown.lost(Unreachable("http://here does not answer"))
    assert out.getvalue().splitlines() == [
        "build-01: running",
        "  look \\x1b[2J[red]here",
        "http://here does not answer",
        "  waiting for it to come back; build-01 is not lost",
    ]


def test_on_a_terminal_there_is_a_bar_with_the_time_left() -> None:
    out = io.StringIO()
    with Watch("build-01", Console(file=out, force_terminal=True, width=80)) as shown:
        for event in events(step("[red]a\x1b[2J", 10, 90.0), "a note"):
            shown.event(event)
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", out.getvalue())
    assert "[red]a\\x1b[2J" in plain
    assert "10/40 tasks, 90 s left" in plain
    assert "a note" in plain
    assert "\x1b[2J" not in out.getvalue().replace("\\x1b[2J", "")


def test_a_table_fits_80_columns_and_keeps_what_is_copied(capsys: pytest.CaptureFixture[str]) -> None:
    entries = [
        BUILD.model_copy(update={"name": "n" * 99, "state": "running", "progress": step("documents/books", 3, 7300.0)}),
        BUILD.model_copy(update={"name": "\x1b[2J\u202e 漢字", "cancel_requested": True}),
    ]
    rows = [entry_row(entry) for entry in entries]
    lines = table_lines(ENTRY_COLUMNS, rows, width=80, may_shrink=("name", "progress"))
    assert all(cell_len(line) <= 80 for line in lines)
    assert all(line.startswith(BUILD.id + "  ") for line in lines[1:])
    assert re.search(r"n…  running  +documents/books…?", lines[1])
    assert "cancelling" in lines[2]
    assert "\x1b" not in lines[2]
    print_entries(entries)  # type: ignore[arg-type]
    assert "n" * 99 in capsys.readouterr().out  # a file has room
    path = "mixtures/" + "m" * 100
    mixture = Mixture(path=path, id="0" * 64, name="m", created=NOW, phases=["a"], tokens=1_234_567, documents=3)
    print_mixtures([mixture])
    assert path in capsys.readouterr().out


def test_an_entry_is_told_in_full() -> None:
    failure = Failure(
        detail="3 of 4 files are no JSON", input_is_wrong=True, errors=[FieldError(pointer="/raw", detail="look there")]
    )
    times = {"started": NOW, "ended": NOW + timedelta(minutes=3)}
    told = "\n".join(
        entry_lines(BUILD.model_copy(update={"state": "failed", "failure": failure, "attempt": 2, **times}))
    )
    for said in (BUILD.id, "failed", "3 min", "3 of 4 files are no JSON", "raw: look there", "by me"):
        assert said in told


def test_a_command_to_type_goes_to_the_same_service() -> None:
    here = argparse.Namespace(server="http://here:1", key_file=Path("my key"))
    assert again(here, "watch", "build-01") == "winnow watch build-01 --server=http://here:1 '--key-file=my key'"
    assert again(argparse.Namespace(server=None, key_file=None), "watch", "build-01") == "winnow watch build-01"


@pytest.mark.parametrize(("number", "said"), [(7, "7"), (1234, "1.23k"), (48_000_000, "48M"), (1.5e12, "1.5T")])
def test_counts_are_short(number: int, said: str) -> None:
    assert screen.count(int(number)) == said


def test_ages_are_short() -> None:
    ago = [timedelta(seconds=-5), timedelta(seconds=45), timedelta(hours=30), timedelta(days=9)]
    assert [screen.age(datetime.now(UTC) - one) for one in ago] == ["0 s", "45 s", "30.0 h", "9 d"]


def test_on_is_a_word_in_a_data_recipe() -> None:
    assert read_data_recipe(HOME / "recipes/bilingual/data.yaml")["tokenizer"]["extend"]["on"] == "arabic"
