"""The same recipe over the same raw content is the same mixture, wherever, however and how often it is built."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataproc.pipeline import STAGES
from dataproc.workers import Workers
from manifest.artifact import open_artifact, verify

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def small(recipe: Make) -> Any:
    """A recipe with everything in it: two sources, copies, near-duplicates across both, a hold-out, a quarantine."""
    return recipe(
        clean={"min_chars": 20, "max_unreadable": 0.2},
        dedup={"scope": "global", "bands": [8, 4]},
        holdout={"fraction": 0.2, "max_share": 0.5},
        phases={"one": {"weights": {"a": 0.5, "b": 0.5}, "tokens": "2k"}, "two": {"epochs": {"a": 1.5}}},
    )


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory, write_jsonl: Make, words: Make) -> Path:
    root = tmp_path_factory.mktemp("pipeline") / "raw"
    texts = [" ".join(words(i, 40)) for i in range(24)]
    texts += texts[:3] + [text + " with an end" for text in texts[2:8]] + ["short"]
    random.Random(3).shuffle(texts)
    for source, half in (("a", texts[::2]), ("b", texts[1::2])):
        write_jsonl(root / source / "1.jsonl", [{"text": text, "n": n} for n, text in enumerate(half[:9])])
        write_jsonl(root / source / "2.jsonl", [{"text": text} for text in half[9:]] + [{"no": "text"}])
    return root


@pytest.fixture(scope="module")
def built(small: Any, raw: Path, build: Make) -> Any:
    return build(small, raw, raw.parent / "store")


@pytest.fixture(scope="module")
def command(small: Any, raw: Path) -> Callable[..., list[object]]:
    """The command that builds `small` from `raw`."""
    path = raw.parent / "recipe.yaml"
    path.write_text(yaml.safe_dump(small.model_dump(mode="json", exclude_none=True)))

    def make(store: Path, *options: object) -> list[object]:
        return ["build", path, "--raw", raw, "--out", store, "--workers", "serial", *options]

    return make


def published(store: Path) -> dict[str, float]:
    """Every artifact, with the time it was written."""
    return {str(m.parent.relative_to(store)): m.stat().st_mtime for m in sorted(store.glob("[!.]*/*/manifest.json"))}


# ---- identity


def test_a_second_build_reuses_everything(built: Any, small: Any, raw: Path, build: Make) -> None:
    before = published(built.store.root)
    assert build(small, raw, built.store.root).id == built.id
    assert published(built.store.root) == before


def test_the_id_depends_neither_on_workers_nor_on_places(
    built: Any,
    small: Any,
    raw: Path,
    tmp_path: Path,
    build: Make,
    ray_workers: Workers,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(raw, tmp_path / "elsewhere" / "raw")
    monkeypatch.chdir(tmp_path)
    moved = build(small, Path("elsewhere/raw"), tmp_path / "another" / "store", ray_workers)
    assert moved.id == built.id
    assert published(moved.store.root).keys() == published(built.store.root).keys()


def test_a_store_can_be_moved_as_a_whole(built: Any, small: Any, raw: Path, tmp_path: Path, build: Make) -> None:
    shutil.copytree(built.store.root, tmp_path / "store")
    again = build(small, raw, tmp_path / "store")
    assert again.id == built.id
    assert verify(again.published[0].uri) > 0
    assert all(Path(again.artifact(kind, name).uri).is_relative_to(tmp_path) for kind, name in [("tokens", "a")])


@pytest.mark.parametrize("root", ["{raw}", "file://{raw}"])
def test_one_changed_byte_is_another_mixture(small: Any, raw: Path, tmp_path: Path, build: Make, root: str) -> None:
    copy = tmp_path / "raw"
    shutil.copytree(raw, copy)
    first = build(small, root.format(raw=copy), tmp_path / "store")
    file = copy / "a" / "1.jsonl"
    file.write_text(_one_letter_changed(file.read_text()))
    second = build(small, root.format(raw=copy), tmp_path / "store")
    assert second.id != first.id
    assert second.artifact("documents", "b").uri == first.artifact("documents", "b").uri


def _one_letter_changed(text: str) -> str:
    place = text.index('"text": "') + len('"text": "')
    return text[:place] + ("x" if text[place] != "x" else "y") + text[place + 1 :]


def test_every_raw_file_is_named_with_its_place(built: Any, raw: Path) -> None:
    inputs = built.artifact("documents", "a").manifest.inputs
    assert {i.uri for i in inputs.values()} == {str(raw / "a" / name) for name in ("1.jsonl", "2.jsonl")}


# ---- what is built


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        ("documents", ["a", "b"]),
        ("signatures", ["a", "b"]),
        ("clusters", ["global"]),
        ("ledger", ["global"]),
        ("heldout", ["all"]),
        ("deduped", ["a", "b"]),
        ("tokenizers", ["bpe"]),
        ("tokens", ["a", "b"]),
        ("mixtures", ["small"]),
    ],
)
def test_a_build_stops_after_the_stage_that_was_asked_for(
    built: Any, small: Any, raw: Path, build: Make, stage: str, names: list[str]
) -> None:
    until = build(small, raw, built.store.root, until=stage)
    assert [Path(item.uri).parent.name for item in until.published] == [stage] * len(names)
    assert [item.manifest.name for item in until.published] == names


def test_every_document_is_counted_once(built: Any) -> None:
    for name, row in built.mixture.summary["sources"].items():
        ends = ("unreadable", "short", "duplicates_within", "duplicates_across", "heldout", "near_heldout", "kept")
        assert sum(row[end] for end in ends) == row["records"]
        assert row["kept"] == len(built.rows("deduped", name))
        assert row["heldout"] == sum(r["source"] == name for r in built.rows("heldout", "all", "heldout"))
    totals = {end: sum(row[end] for row in built.mixture.summary["sources"].values()) for end in (*ends, "records")}
    assert totals["records"] == 36
    assert min(totals.values()) > 0 or totals["near_heldout"] == 0


def test_phases_draw_what_the_recipe_says(built: Any) -> None:
    one, two = built.mixture.phases
    assert one.draw == {"a": 62, "b": 63} or one.draw == {"a": 63, "b": 62}
    assert two.draw == {"a": round(1.5 * built.mixture.streams["a"].blocks)}


@pytest.mark.parametrize("until", ["raw", "documents", "tokens", "mixtures"])
def test_a_dry_run_publishes_nothing(
    small: Any, raw: Path, tmp_path: Path, build: Make, until: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if until in STAGES:
        build(small, raw, tmp_path / "store", until=until)
    before = published(tmp_path / "store")
    capsys.readouterr()
    assert (build(small, raw, tmp_path / "store", dry=True).published == []) == (until != "mixtures")
    assert published(tmp_path / "store") == before
    would = [line.partition(":")[0] for line in capsys.readouterr().err.splitlines() if "would be built" in line]
    assert ("mixture/small" in would or "mixtures/small" in would) == (until != "mixtures")
    assert ("documents/a" in would) == (until == "raw")


# ---- what goes wrong


@pytest.fixture
def copied(built: Any, tmp_path: Path) -> Path:
    """A copy of the store, without what comes after documents and signatures."""
    shutil.copytree(built.store.root, tmp_path / "store")
    for kind in STAGES[2:]:
        if (tmp_path / "store" / kind).exists():
            shutil.rmtree(tmp_path / "store" / kind)
    return tmp_path / "store"


@pytest.mark.parametrize("kind", ["documents", "signatures"])
def test_a_changed_byte_in_an_artifact_is_reported(
    copied: Path, built: Any, zygote: Any, command: Callable[..., list[object]], kind: str
) -> None:
    (shard,) = (copied / kind).glob(f"a-*/{kind}*.parquet")
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    outcome = zygote.run(*command(copied))
    assert (outcome.code, outcome.stdout) == (2, "")
    assert f"{shard} cannot be read" in outcome.stderr
    assert f"Delete {shard.parent} and run the same command again" in outcome.stderr
    shutil.rmtree(shard.parent)
    assert Path(zygote.run(*command(copied)).stdout.strip()).name == Path(built.published[0].uri).name


def test_a_missing_shard_is_reported(
    copied: Path, built: Any, zygote: Any, command: Callable[..., list[object]]
) -> None:
    (shard,) = (copied / "documents").glob("a-*/documents*.parquet")
    shard.unlink()
    outcome = zygote.run(*command(copied))
    assert (outcome.code, outcome.stdout) == (2, "")
    assert f"{shard} is missing" in outcome.stderr
    assert f"delete {shard.parent} and run the same build again" in outcome.stderr


def test_two_builds_into_one_store_at_a_time_give_one_result(
    built: Any, tmp_path: Path, zygote: Any, command: Callable[..., list[object]]
) -> None:
    outcomes = zygote.run_together([command(tmp_path / "store")] * 2)
    assert [outcome.code for outcome in outcomes] == [0, 0]
    assert {outcome.stdout for outcome in outcomes} == {f"{next((tmp_path / 'store' / 'mixtures').iterdir())}\n"}
    assert published(tmp_path / "store").keys() == published(built.store.root).keys()


def test_a_build_that_is_killed_again_and_again_ends_in_the_same_mixture(
    built: Any, tmp_path: Path, zygote: Any, command: Callable[..., list[object]]
) -> None:
    for attempt in range(20):
        outcome = zygote.run(*command(tmp_path / "store"), kill_at=20 + 28 * attempt)
        if outcome.code == 0:
            break
        assert outcome.code == -9
        whole_or_absent(tmp_path / "store")
    assert attempt >= 4
    assert open_artifact(outcome.stdout.strip()).manifest.id == built.id
    assert published(tmp_path / "store").keys() == published(built.store.root).keys()


def killed_at(
    moments: list[int], store: Path, zygote: Any, command: Callable[..., list[object]], expected: str
) -> None:
    for moment in moments:
        killed = zygote.run(*command(store / str(moment)), kill_at=moment)
        assert killed.code == -9
        whole_or_absent(store / str(moment))
        assert open_artifact(zygote.run(*command(store / str(moment))).stdout.strip()).manifest.id == expected
        shutil.rmtree(store / str(moment))


def whole_or_absent(store: Path) -> None:
    for path in published(store):
        verify(store / path)


def test_a_build_that_is_killed_at_any_moment_ends_in_the_same_mixture(
    built: Any, tmp_path: Path, zygote: Any, command: Callable[..., list[object]]
) -> None:
    calls = zygote.run(*command(tmp_path / "whole")).calls
    assert calls > 100
    killed_at(random.Random(calls).sample(range(1, calls), 4), tmp_path, zygote, command, built.id)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_build_that_is_killed_at_many_moments_ends_in_the_same_mixture(
    built: Any, tmp_path: Path, zygote: Any, command: Callable[..., list[object]]
) -> None:
    calls = zygote.run(*command(tmp_path / "whole")).calls
    killed_at(list(range(1, calls, 5)), tmp_path, zygote, command, built.id)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A file system of so many KB; called again, it grows."""
    path = tmp_path / "disk"
    path.mkdir()

    def size(kilobytes: int) -> Path:
        remount = ["-o", f"remount,size={kilobytes}k"] if os.path.ismount(path) else ["-o", f"size={kilobytes}k"]
        done = subprocess.run(["mount", "-t", "tmpfs", *remount, "tmpfs", path], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
        return path

    yield size
    if os.path.ismount(path):
        subprocess.run(["umount", path], check=True)


@pytest.mark.skipif(shutil.which("mount") is None or os.geteuid() != 0, reason="mounting takes root")
def test_a_full_disk_is_said_and_the_build_goes_on_when_there_is_room(
    built: Any, zygote: Any, command: Callable[..., list[object]], tiny_disk: Callable[[int], Path]
) -> None:
    failed = []
    for kilobytes in (4, 48, 96, 160, 260, 600, 2000):
        disk = tiny_disk(kilobytes)
        outcome = zygote.run(*command(disk / "store"))
        if outcome.code == 0:
            break
        assert outcome.code == 2, outcome.stderr
        assert "error: the disk is full" in outcome.stderr.splitlines()[-1]
        assert "run the same command again: it continues" in outcome.stderr.splitlines()[-1]
        whole_or_absent(disk / "store")
        failed.append(outcome.stderr.splitlines()[-2])
    assert len(failed) >= 4
    assert open_artifact(outcome.stdout.strip()).manifest.id == built.id
