"""Machine code on disk: made once, made again when it is stale or damaged, and enough without numba."""

import subprocess
import sys
from pathlib import Path

import pytest

from dataproc.dedup import native
from dataproc.dedup.native import kept_on_disk


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


def test_a_warm_process_runs_without_numba() -> None:
    run = "import sys; from dataproc.dedup import minhash; minhash.warm(); print('numba' in sys.modules)"
    outputs = [subprocess.run([sys.executable, "-c", run], capture_output=True, text=True).stdout for _ in range(2)]
    assert outputs[1] == "False\n"


WITHOUT = """
import pyarrow as pa
from dataproc.dedup import cleaning, native
from dataproc.dedup.kernels import cleaning as kernels

kernels.PACKS = False
native._directories = lambda: iter([])  # nothing that was compiled for this CPU
rows = ["A" * k + piece for k in range(130) for piece in ("", " - Bb", "  É-x" * k, "?!" * k + "b", " Σ " + "z" * k)]
print(cleaning.clean_all(pa.array(rows)).to_pylist() == [cleaning.clean(row) for row in rows])
"""


def test_cleaning_does_not_depend_on_an_instruction_of_new_cpus() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr
