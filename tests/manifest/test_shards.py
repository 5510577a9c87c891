"""Streams of many shards open them when they are read, and hold no file descriptors."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manifest import shards
from manifest.corpus import TokenStream, open_stream
from manifest.errors import CorruptArtifact
from manifest.mapped import MappedFile
from manifest.mixture import TokenShard
from manifest.record import FileEntry

Write = Callable[..., list[Path]]

DOCUMENTS = {f"d{index}": list(range(10 * index, 11 * index)) for index in range(40)}


def entries(stems: list[Path]) -> list[TokenShard]:
    """What a mixture says of shards."""

    def entry(stem: Path, suffix: str) -> FileEntry:
        file = stem.with_name(stem.name + suffix)
        return FileEntry(path=file.name, bytes=file.stat().st_size, sha256="0" * 64)

    found = []
    for stem in stems:
        shard = open_stream([stem], 8).shards[0]
        files = {suffix[1:]: entry(stem, suffix) for suffix in (".bin", ".idx", ".ids")}
        found.append(TokenShard(**files, tokens=shard.tokens.size, documents=shard.documents))
    return found


@pytest.fixture
def stems(write_shards: Write, tmp_path: Path) -> list[Path]:
    return write_shards(tmp_path, DOCUMENTS, 6)


def test_shards_that_are_opened_later_make_the_same_stream(stems: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "AT_ONCE", 1)
    monkeypatch.setattr(shards, "KEPT", 2)
    listed = entries(stems)
    sizes = [(shard.tokens, shard.documents) for shard in listed]
    later = TokenStream(shards.open_shards(stems[0].parent, listed), 8, sizes)
    at_once = open_stream(stems, 8)
    assert later.read(0, 2 * later.tokens).tolist() == at_once.read(0, 2 * at_once.tokens).tolist()
    assert list(later.spans(0, later.tokens)) == list(at_once.spans(0, at_once.tokens))
    assert [later.find(document) for document in DOCUMENTS] == [at_once.find(document) for document in DOCUMENTS]
    assert later.find("nobody") is None


def test_a_damaged_shard_is_found_when_it_is_opened(stems: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    listed = entries(stems)
    broken = stems[3].with_name(stems[3].name + ".idx")
    broken.write_bytes(b"X" + broken.read_bytes()[1:])
    with pytest.raises(CorruptArtifact, match=broken.name):
        shards.open_shards(broken.parent, listed)
    monkeypatch.setattr(shards, "AT_ONCE", 1)
    later = shards.open_shards(broken.parent, listed)
    assert later[2].documents == listed[2].documents
    with pytest.raises(CorruptArtifact, match=broken.name):
        _ = later[3]


def test_a_shard_of_another_size_than_the_mixture_says_is_refused(stems: list[Path]) -> None:
    listed = entries(stems)
    listed[1] = listed[1].model_copy(update={"tokens": listed[1].tokens + 1})
    with pytest.raises(CorruptArtifact, match=f"the mixture says {listed[1].tokens}"):
        shards.open_shards(stems[0].parent, listed)


def test_open_shards_hold_no_file_descriptor_and_cannot_be_written_to(stems: list[Path]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    stream = open_stream(stems, 8)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ValueError, match="read-only"):
        stream.shards[0].tokens[:1] = 0


def test_an_array_keeps_its_file_mapped(tmp_path: Path) -> None:
    file = tmp_path / "numbers"
    file.write_bytes(bytes(range(100)))
    part = MappedFile(file).array(np.dtype("u1"), 10, 20)[5:]
    file.unlink()
    assert part.tolist() == list(range(15, 30))
