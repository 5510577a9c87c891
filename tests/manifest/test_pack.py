"""Packs as artifacts: published, opened, and refused where they are not what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from manifest.artifact import Opened, open_artifact, open_streams, relative_uri, verify
from manifest.corpus import TokenStream
from manifest.errors import CorruptArtifact, NotAnArtifact, WrongArtifact
from manifest.pack import open_pack, open_referred_pack, pack, pack_fingerprint, pack_record, write_pack
from manifest.record import Reference

if TYPE_CHECKING:
    from tests.manifest.conftest import Builder, Built

DOCUMENTS = {f"d{i}": [i + 1] * n for i, n in enumerate([3, 9, 1, 4, 0, 2, 6, 5])}


def publish(build: Builder, tokens: Built, stream: TokenStream, capacity: int) -> Opened:
    path = f"packs/{tokens.manifest.name}-{capacity}"
    base = build.store.where(path)
    reference = Reference(
        kind="tokens", name=tokens.manifest.name, id=tokens.manifest.id, uri=relative_uri(tokens.uri, base)
    )
    with build.store.draft(path) as draft:
        made, summary = pack(stream, capacity)
        build.store.publish(path, draft, pack_record(reference, capacity, write_pack(made, draft), summary))
    return open_artifact(base)


@pytest.fixture
def tokens(build: Builder) -> Built:
    return build.tokens("a", DOCUMENTS, shards=2)


@pytest.fixture
def stream(build: Builder, tokens: Built) -> TokenStream:
    return open_streams(open_artifact(build.mixture("m", {"a": tokens}, {"p": {"a": 1}}).uri))["a"]


def test_what_is_opened_is_what_was_written_and_lies_in_its_files(
    build: Builder, tokens: Built, stream: TokenStream
) -> None:
    opened, made = open_pack(publish(build, tokens, stream, 4), stream), pack(stream, 4)[0]
    assert opened.capacity == made.capacity == 4
    for name in ("offsets", "start", "length", "order"):
        found = getattr(opened, name)
        assert np.array_equal(found, getattr(made, name))
        assert isinstance(found.base, np.memmap)


def test_a_pack_counts_what_the_bins_hold(build: Builder, tokens: Built, stream: TokenStream) -> None:
    summary = pack(stream, 4)[1]
    assert (summary.tokens, summary.documents) == (30, 8)
    assert (summary.cut_documents, summary.cut_pieces) == (3, 3 + 2 + 2)  # of 9, 6 and 5 tokens
    assert summary.bins * 4 - summary.padding == 30
    assert summary.padding_share == summary.padding / (summary.bins * 4)


def test_a_pack_is_named_by_its_tokens_and_its_capacity() -> None:
    reference = Reference(kind="tokens", name="a", id="1", uri="x")
    moved = reference.model_copy(update={"uri": "y"})
    other = reference.model_copy(update={"id": "2"})
    assert pack_fingerprint(reference, 4) == pack_fingerprint(moved, 4)
    assert len({pack_fingerprint(r, c) for r in (reference, other) for c in (4, 8)}) == 4


def test_a_changed_file_is_found(build: Builder, tokens: Built, stream: TokenStream) -> None:
    opened = publish(build, tokens, stream, 4)
    file = opened.directory / "start.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptArtifact, match=r"start\.npy has SHA-256"):
        verify(opened.uri)
    np.save(file, np.arange(3))
    with pytest.raises(CorruptArtifact, match=r"start\.npy holds int64 \(3,\); the manifest says"):
        open_pack(opened, stream)
    file.write_bytes(b"nothing")
    with pytest.raises(CorruptArtifact, match=r"start\.npy cannot be read"):
        open_pack(opened, stream)


def test_a_pack_of_other_tokens_is_refused(build: Builder, tokens: Built, stream: TokenStream) -> None:
    opened = publish(build, tokens, stream, 4)
    other = build.mixture("other", {"b": build.tokens("b", {"x": [1] * 9})}, {"p": {"b": 1}})
    with pytest.raises(WrongArtifact, match=r"lays out 30 tokens of \w+; the stream has 9"):
        open_pack(opened, open_streams(open_artifact(other.uri))["b"])


def test_a_pack_that_is_gone_or_another_is_named(build: Builder, tokens: Built, stream: TokenStream) -> None:
    opened = publish(build, tokens, stream, 4)
    right = Reference(kind="packs", name="a", id=opened.manifest.id, uri=opened.uri)
    assert replace(open_referred_pack("", right), uri="") == replace(opened, uri="")
    with pytest.raises(WrongArtifact, match=r"the run reads the pack ffff"):
        open_referred_pack("", right.model_copy(update={"id": "f" * 64}))
    with pytest.raises(NotAnArtifact, match="is gone: the pack of a"):
        open_referred_pack("", right.model_copy(update={"uri": f"{opened.uri}-gone"}))
