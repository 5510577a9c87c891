"""Machine code on disk: made once, made again when it is stale or damaged, and enough without numba."""

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from dataproc import native
from dataproc.native import kept_on_disk


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory where things are kept."""
    monkeypatch.setattr(native, "_directories", lambda: iter([tmp_path / "kept"]))
    return tmp_path / "kept"


def made(content: bytes, *made_with: str) -> bytes:
    return kept_on_disk("thing", made_with, lambda: content)


def test_what_is_kept_is_not_made_again(place: Path) -> None:
    assert made(b"first", "a", "b") == b"first"
    assert made(b"second", "a", "b") == b"first"


def test_what_was_made_with_other_things_is_made_again(place: Path) -> None:
    assert made(b"first", "a", "b") == b"first"
    assert made(b"second", "ab") == b"second"
    assert made(b"third", "ab") == b"second"


def test_what_was_made_by_other_sources_is_made_again(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):  # the same file in each, of other content
        (tmp_path / name).mkdir()
        (tmp_path / name / "kernel.py").write_text(name)
        monkeypatch.setattr(native, "_SOURCES", tmp_path / name)
        assert made(name.encode()) == name.encode()


@pytest.mark.parametrize("damage", [lambda whole: whole[:-1], lambda whole: b"", lambda whole: whole[:-1] + b"!"])
def test_what_is_damaged_is_made_again(place: Path, damage: object) -> None:
    assert made(b"first", "a") == b"first"
    (file,) = place.iterdir()
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    assert made(b"second", "a") == b"second"
    assert made(b"third", "a") == b"second"


def test_without_a_place_things_are_made_every_time(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    place.write_text("a file, where a directory should be")
    assert made(b"first") == b"first"
    assert made(b"second") == b"second"
    assert "XDG_CACHE_HOME" in caplog.text


BUILD = """
import atexit, sys
from dataproc.cli import main

atexit.register(lambda: print("numba" in sys.modules))
sys.argv = ["dataproc", "build", *sys.argv[1:]]
main()
"""


def test_once_kernels_are_compiled_a_build_runs_without_numba(
    tmp_path: Path, write_jsonl: Callable[..., None], recipe: Callable[..., Any]
) -> None:
    """From JSON lines with what ftfy repairs, to a mixture, with near-duplicates and their audit."""
    for source in "ab":
        texts = [f"{source} \u201cquoted\u201d text {i // 2}, of {i % 2}, " + "some words " * 30 for i in range(20)]
        write_jsonl(tmp_path / "raw" / source / "x.jsonl", [{"text": text} for text in texts])
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe().model_dump(mode="json", exclude_none=True)))

    def build(store: str) -> str:
        command = [tmp_path / "recipe.yaml", "--raw", tmp_path / "raw", "--out", tmp_path / store]
        done = subprocess.run(
            [sys.executable, "-c", BUILD, *map(str, command), "--workers", "serial"], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[-1]

    build("first")
    assert build("second") == "False"


def test_kernels_are_made_of_nothing_but_their_directory() -> None:
    """Its files are what a copy on disk is held against."""
    for path in sorted(native._SOURCES.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            assert (
                not (module or "").startswith("dataproc.")
                or module == "dataproc.native"
                or ((module or "").startswith("dataproc.kernels."))
            ), f"{path.name} imports {module}"


WITHOUT = """
import pyarrow as pa
from dataproc import native
from dataproc.dedup import cleaning
from dataproc.kernels import cleaning as kernels

kernels.PACKS = False
native._directories = lambda: iter([])  # nothing that was compiled for this CPU
rows = ["A" * k + piece for k in range(130) for piece in ("", " - Bb", "  É-x" * k, "?!" * k + "b", " Σ " + "z" * k)]
print(cleaning.clean_all(pa.array(rows)).to_pylist() == [cleaning.clean(row) for row in rows])
"""


def test_cleaning_does_not_depend_on_an_instruction_of_new_cpus() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
