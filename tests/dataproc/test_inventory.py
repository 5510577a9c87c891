"""Raw files are known by their content; a file is hashed once as long as it does not change."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dataproc import inventory as module
from dataproc.inventory import build_identity, inventory, listing, listing_key
from dataproc.raw import RawFile
from dataproc.recipe import DataRecipe
from dataproc.stage import Build
from dataproc.workers import Serial, Workers
from manifest.store import LocalStore

Make = Callable[..., Any]


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for source in "ab":
        (tmp_path / "raw" / source).mkdir(parents=True)
        for i in range(3):
            (tmp_path / "raw" / source / f"{i}.jsonl").write_text(f'{{"text": "{source}{i}"}}')
    return tmp_path / "raw"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that were hashed, in this process."""
    paths: list[str] = []
    original = module.sha256_of

    def counting(file: RawFile) -> RawFile:
        paths.append(file.path)
        return original(file)

    monkeypatch.setattr(module, "sha256_of", counting)
    return paths


def listed(recipe: Make, raw: Path, store: Path, workers: Workers, dry: bool = False) -> dict[str, dict[str, str]]:
    found = inventory(recipe(), str(raw), Build(LocalStore(store), workers, dry=dry))
    return {name: {file.path: file.sha256 for file in files} for name, files in found.items()}


def test_every_file_has_the_sha256_of_its_bytes(raw: Path, tmp_path: Path, recipe: Make, workers: Workers) -> None:
    expected = {
        source: {
            f"{source}/{i}.jsonl": hashlib.sha256((raw / source / f"{i}.jsonl").read_bytes()).hexdigest()
            for i in range(3)
        }
        for source in "ab"
    }
    assert listed(recipe, raw, tmp_path / "store", workers) == expected


def test_only_a_file_that_changed_is_hashed_again(raw: Path, tmp_path: Path, recipe: Make, hashed: list[str]) -> None:
    before = listed(recipe, raw, tmp_path / "store", Serial())
    assert len(hashed) == 6
    file = raw / "a" / "1.jsonl"
    changed = file.stat().st_mtime_ns + 1
    file.write_text(file.read_text().replace("a1", "z1"))
    os.utime(file, ns=(changed, changed))
    after = listed(recipe, raw, tmp_path / "store", Serial())
    assert hashed[6:] == ["a/1.jsonl"]
    assert {path for path in before["a"] if before["a"][path] != after["a"][path]} == {"a/1.jsonl"}
    assert after["b"] == before["b"]


def test_a_dry_build_hashes_and_writes_nothing_down(raw: Path, tmp_path: Path, recipe: Make) -> None:
    wet = listed(recipe, raw, tmp_path / "store", Serial())
    assert listed(recipe, raw, tmp_path / "dry", Serial(), dry=True) == wet
    assert not (tmp_path / "dry").exists()


def test_a_dry_build_hashes_no_mountains(
    raw: Path, tmp_path: Path, recipe: Make, hashed: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    wet = listed(recipe, raw, tmp_path / "store", Serial())
    (raw / "b" / "3.jsonl").write_text('{"text": "new"}')
    monkeypatch.setattr(module, "DRY_BYTES", 10)
    dry = listed(recipe, raw, tmp_path / "store", Serial(), dry=True)
    assert len(hashed) == 6  # those of the build
    assert dry["a"] == wet["a"]
    assert dry["b"].items() > wet["b"].items()  # what a build has read is known
    assert "1 raw files (0.0 GB) are new, or were touched" in capsys.readouterr().err


def test_a_listing_has_a_key_and_content_an_identity(raw: Path, tmp_path: Path) -> None:
    recipe = DataRecipe.model_validate(
        {
            "name": "r",
            "sources": {"a": {"files": "a/*"}, "b": {"files": "b/*"}},
            "tokenizer": {"train": {"vocab_size": 300}},
            "phases": {"p": {"epochs": {"a": 1}}},
            "block_tokens": 16,
        }
    )
    build = Build(LocalStore(tmp_path / "store"), Serial())

    def both(root: Path, until: str = "mixtures", recipe: DataRecipe = recipe) -> tuple[str, str]:
        files = inventory(recipe, str(root), build)
        return listing_key(recipe, listing(recipe, str(root)), until), build_identity(recipe, files, until)

    first = both(raw)
    assert both(raw) == first
    copy = shutil.copytree(raw, tmp_path / "copy", copy_function=shutil.copyfile)
    assert (both(copy)[0] != first[0], both(copy)[1]) == (True, first[1])
    os.utime(raw / "a" / "0.jsonl", (0, 0))
    touched = both(raw)
    assert (touched[0] != first[0], touched[1]) == (True, first[1])
    others = [both(raw, until="tokens"), both(raw, recipe=recipe.model_copy(update={"name": "s"}))]
    (raw / "b" / "2.jsonl").write_text('{"text": "changed"}')
    others.append(both(raw))
    assert len({touched, *others}) == len({identity for _, identity in [touched, *others]}) == 4
