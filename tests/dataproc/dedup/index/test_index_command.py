"""`dataproc index`: what it prints, what it refuses, and that it may be killed or run twice at any moment."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from dataproc.dedup.index.show import clusters
from dataproc.dedup.index.state import open_index
from manifest.artifact import open_artifact, verify

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, corpus: dict[str, str], write_raw: Make, near_recipe: Make) -> Path:
    """recipe.yaml, and two halves of the corpus as raw files in one/ and two/."""
    place = tmp_path_factory.mktemp("command")
    ids = sorted(corpus)
    write_raw({i: corpus[i] for i in ids[::2]}, place / "one")
    write_raw({i: corpus[i] for i in ids[1::2]}, place / "two")
    (place / "recipe.yaml").write_text(yaml.safe_dump(near_recipe().model_dump(mode="json", exclude_none=True)))
    (place / "text.txt").write_text(corpus["a/short-1"])
    return place


@pytest.fixture(scope="module")
def index(place: Path, zygote: Any) -> Make:
    """(action, index, options) → how the command ended."""

    def run(action: str, root: object, *options: object, kill_at: int = 0) -> Any:
        return zygote.run("index", action, root, *options, kill_at=kill_at)

    return run


@pytest.fixture(scope="module")
def add(place: Path, index: Make) -> Make:
    def run(root: Path, half: str = "one", *options: object, kill_at: int = 0) -> Any:
        return index("add", root, *adding(place, half), *options, kill_at=kill_at)

    return run


def adding(place: Path, half: str) -> list[object]:
    return ["--recipe", place / "recipe.yaml", "--raw", place / half]


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory, add: Make) -> Path:
    """An index of the first half."""
    root = tmp_path_factory.mktemp("half") / "index"
    assert add(root).code == 0
    return root


@pytest.fixture
def copied(half: Path, tmp_path: Path) -> Path:
    """An index of the first half, of a test's own."""
    return Path(shutil.copytree(half, tmp_path / "index"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, half: Path, add: Make) -> Path:
    """An index of both halves."""
    root = Path(shutil.copytree(half, tmp_path_factory.mktemp("filled") / "index"))
    assert add(root, "two").code == 0
    return root


def rows(jsonl: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in jsonl.splitlines()]


# ---- what is printed


def test_adding_prints_the_batch_and_writes_its_report(add: Make, copied: Path, tmp_path: Path) -> None:
    outcome = add(copied, "two", "--out", tmp_path / "report.parquet")
    assert (outcome.code, Path(outcome.stdout.strip()).parent) == (0, copied / "batches")
    report = pl.read_parquet(tmp_path / "report.parquet")
    summary = open_artifact(outcome.stdout.strip()).manifest.summary  # type: ignore[attr-defined]
    assert report.filter(pl.col("match").is_not_null()).height == summary["matched"] > 5
    assert report.filter(pl.col("status") == "demoted").height == summary["demoted"]
    assert f"{summary['demoted']} documents survive no more" in outcome.stderr


def test_artifacts_may_follow_options(index: Make, half: Path, place: Path, tmp_path: Path) -> None:
    signatures = sorted((half / "signatures").iterdir())
    outcome = index("add", tmp_path / "index", "--recipe", place / "recipe.yaml", *signatures, "--workers", "serial")
    assert outcome.code == 0
    assert clusters(open_index(tmp_path / "index")).equals(clusters(open_index(half)))


def test_a_probe_prints_rows_or_writes_them(index: Make, place: Path, copied: Path, tmp_path: Path, add: Make) -> None:
    printed = index("probe", copied, *adding(place, "two"))
    written = index("probe", copied, *adding(place, "two"), "--out", tmp_path / "probe.jsonl")
    assert (printed.code, written.code, written.stdout) == (0, 0, "")
    assert rows(printed.stdout) == rows((tmp_path / "probe.jsonl").read_text())
    add(copied, "two", "--out", tmp_path / "added.jsonl")
    assert rows(printed.stdout) == rows((tmp_path / "added.jsonl").read_text())


def test_a_text_is_probed(index: Make, filled: Path, place: Path) -> None:
    outcome = index("probe", filled, "--text", place / "text.txt")
    (row,) = rows(outcome.stdout)
    assert (row["id"], row["match"], row["jaccard"]) == (str(place / "text.txt"), "a/short-1", 1.0)


def test_an_overview_is_json_and_a_table_of_clusters(index: Make, filled: Path, corpus: Any, tmp_path: Path) -> None:
    outcome = index("show", filled, "--clusters", tmp_path / "clusters.parquet")
    shown = json.loads(outcome.stdout)
    assert (shown["documents"], len(shown["log"])) == (len(corpus), 2)
    assert pl.read_parquet(tmp_path / "clusters.parquet").height == shown["clustered_documents"] > 20
    assert "000002" in outcome.stderr


def test_a_removal_can_be_tried_and_done_and_built_without(index: Make, place: Path, copied: Path, zygote: Any) -> None:
    tried = index("remove", copied, "--text", place / "text.txt", "--dry-run")
    assert [(row["id"], row["status"]) for row in rows(tried.stdout)] == [("b/short-2", "removed")]
    done = index("remove", copied, "--text", place / "text.txt", "--reason", "asked by the author")
    assert done.code == 0
    assert rows(tried.stdout)[0]["tombstone"] == "text 1"
    build = ["build", place / "recipe.yaml", "--raw", place / "one", "--out", copied, "--workers", "serial"]
    built = zygote.run(*build, "--until", "deduped", "--without", done.stdout.strip())
    assert built.code == 0
    removed = [pl.read_parquet(file) for file in copied.glob("removed/*/*.parquet")]
    assert [frame["id"].to_list() for frame in removed] == [["b/short-2"]]
    planned = zygote.run(*build, "--dry-run", "--without", done.stdout.strip())
    assert "another tokenizer, and every source is tokenized anew" in planned.stderr


@pytest.mark.parametrize(
    ("action", "options", "said"),
    [
        ("add", [], "give documents (or deduped, or signatures) artifacts, or --raw"),
        ("add", ["--raw", "one"], "--raw needs --recipe"),
        ("add", ["some/artifact", "--source", "a"], "--source goes with --raw"),
        ("add", ["some/artifact"], "is not a published artifact"),
        ("probe", ["--text", "nowhere.txt"], "--text nowhere.txt: cannot be read"),
        ("probe", ["--text", "x", "--out", "rows.csv"], "rows.csv: a table is written as .jsonl or .parquet"),
        ("remove", [], "give --document ID or --text FILE"),
        ("remove", ["--document", "a/nobody"], "1 ids are not in"),
        ("remove", ["--document", ""], "--document: expected a document or a text"),
    ],
)
def test_a_wrong_command_ends_with_2_and_a_line(
    index: Make, filled: Path, action: str, options: list[str], said: str
) -> None:
    outcome = index(action, filled, *options)
    assert (outcome.code, outcome.stdout) == (2, "")
    (line,) = [line for line in outcome.stderr.splitlines() if line.startswith("error: ")]
    assert said in line


def test_a_source_may_be_added_alone(place: Path, add: Make, tmp_path: Path) -> None:
    assert add(tmp_path / "index", "one", "--source", "b").code == 0
    wrong = add(tmp_path / "index", "one", "--source", "bb")
    assert (wrong.code, "--source bb" in wrong.stderr) == (2, True)
    assert {path.name[0] for path in (tmp_path / "index" / "documents").iterdir()} == {"b"}


# ---- what may happen to it


def test_an_addition_that_is_killed_at_any_moment_is_done_by_the_same_command(
    half: Path, add: Make, tmp_path: Path
) -> None:
    expected = open_index(half).entries[1]
    calls = add(tmp_path / "whole").calls
    for moment in random.Random(calls).sample(range(1, calls), 3):
        root = tmp_path / str(moment)
        assert add(root, kill_at=moment).code == -9
        for manifest in root.glob("[!.]*/*/manifest.json"):
            verify(manifest.parent)
        again = add(root)
        assert open_artifact(again.stdout.strip()).manifest.id == open_artifact(expected).manifest.id
        assert [Path(uri).name for uri in open_index(root).entries[1:]] == [Path(expected).name]


def test_a_removal_that_is_killed_at_any_moment_is_done_by_the_same_command(
    index: Make, copied: Path, corpus: dict[str, str]
) -> None:
    before = clusters(open_index(copied))
    removing = ("--document", *sorted(corpus)[:6:2])
    for moment in range(2, 40, 3):
        outcome = index("remove", copied, *removing, kill_at=moment)
        if len(open_index(copied).entries) > 2:  # it may have been killed after it had published
            break
        assert outcome.code == -9
        assert clusters(open_index(copied)).equals(before)
    assert moment > 8
    assert index("remove", copied, *removing).stdout.strip() == open_index(copied).entries[2]


def test_two_additions_at_a_time_follow_one_another(place: Path, filled: Path, tmp_path: Path, zygote: Any) -> None:
    root = tmp_path / "index"
    both = [["index", "add", root, *adding(place, half)] for half in ("one", "two")]
    assert [outcome.code for outcome in zygote.run_together(both)] == [0, 0]
    assert len(open_index(root).entries) == 3
    assert clusters(open_index(root)).equals(clusters(open_index(filled)))
