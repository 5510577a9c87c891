"""Text of this machine becomes raw sources: a fair sample, whole files, nothing that is no text."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from dataproc import gather as module
from dataproc.gather import Place, gather
from dataproc.raw import RawRoot, records
from dataproc.recipe.sources import Source
from manifest.errors import InputError


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small machine of two sources."""
    root = tmp_path / "machine"
    (root / "doc" / "deep").mkdir(parents=True)
    for i in range(40):
        (root / f"{i}.py").write_text(f"print({i})\n" * 20)
    (root / "doc" / "deep" / "readme.gz").write_bytes(gzip.compress("a réadme".encode()))
    (root / "doc" / "broken.gz").write_bytes(gzip.compress(os.urandom(500))[:300])
    damaged = bytearray(gzip.compress(b"damaged " * 100))
    damaged[14] ^= 0xFF
    (root / "doc" / "damaged.gz").write_bytes(damaged)
    (root / "doc" / "binary").write_bytes(b"\x00\x01\x02")
    (root / "doc" / "latin1").write_bytes(b"caf\xe9")
    (root / "doc" / "empty").write_bytes(b"")
    (root / "doc" / "large").write_text("x" * 400_001)
    places = {
        "code": (0.5, (Place("python", root, ("*.py",)),)),
        "docs": (0.5, (Place("doc", root / "doc", ("**/*",)),)),
        "none": (0.0, (Place("none", root / "none", ("*",)),)),
    }
    monkeypatch.setattr(module, "places", lambda: places)
    return root


def read(out: Path, source: str) -> list[Any]:
    files = RawRoot(str(out)).files(source, Source(files=(f"{source}/*",)))
    return [record for file in files for _, record in records(file)]


def test_only_whole_texts_are_taken(machine: Path, tmp_path: Path) -> None:
    gather(tmp_path / "raw", limit_bytes=1_000_000)
    path = str(machine / "doc" / "deep" / "readme.gz")
    assert read(tmp_path / "raw", "docs") == [{"id": "doc/deep/readme.gz", "text": "a réadme", "meta": {"path": path}}]
    assert {r["id"]: r["text"] for r in read(tmp_path / "raw", "code")} == {
        f"python/{i}.py": f"print({i})\n" * 20 for i in range(40)
    }
    assert sorted(entry.name for entry in (tmp_path / "raw").iterdir()) == ["code", "docs"]


def test_a_limit_takes_a_sample_that_a_larger_one_only_adds_to(machine: Path, tmp_path: Path) -> None:
    sampled = []
    for limit in (4_000, 8_000):
        gather(tmp_path / str(limit), limit_bytes=limit)
        sampled.append([record["id"] for record in read(tmp_path / str(limit), "code")])
    few, more = sampled
    assert 5 < len(few) < len(more) < 40
    assert more[: len(few)] == few
    assert few != sorted(few)


def test_a_source_that_is_there_is_kept(machine: Path, tmp_path: Path) -> None:
    gather(tmp_path / "raw", limit_bytes=4_000)
    before = read(tmp_path / "raw", "code")
    gather(tmp_path / "raw", limit_bytes=1_000_000)
    assert read(tmp_path / "raw", "code") == before


def test_a_machine_without_text_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "places", lambda: {"none": (1.0, (Place("none", tmp_path / "none", ("*",)),))})
    with pytest.raises(InputError, match="no text was found on this machine; give dataproc build your own"):
        gather(tmp_path / "raw", limit_bytes=1000)


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "raw").write_text("")
    with pytest.raises(InputError, match="is a file; give a directory"):
        gather(tmp_path / "raw", limit_bytes=1000)
