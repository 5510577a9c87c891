from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from manifest.corpus import TokenStream
from manifest.errors import CorruptArtifact
from manifest.identity import content_hash, content_id, hash64
from manifest.indexed import ShardWriter, open_shard, token_dtype

Write = Callable[..., list[Path]]
DOCUMENTS = {"a/1": [5, 6, 7], "a/2": [8], "b/1": [], "ü/3": [9, 10], "c": [999, 0, 1, 2]}


def parse_idx(data: bytes) -> tuple[type, list[int], list[int], list[int]]:
    """Megatron's index as its documentation has it: dtype, lengths, pointers, document boundaries."""
    magic, version, code, sequences, boundaries = struct.unpack_from("<9sQBQQ", data)
    assert (magic, version) == (b"MMIDIDX\x00\x00", 1)
    offset = struct.calcsize("<9sQBQQ")
    lengths = list(struct.unpack_from(f"<{sequences}i", data, offset))
    offset += 4 * sequences
    pointers = list(struct.unpack_from(f"<{sequences}q", data, offset))
    offset += 8 * sequences
    documents = list(struct.unpack_from(f"<{boundaries}q", data, offset))
    assert offset + 8 * boundaries == len(data)
    return {8: np.uint16, 4: np.int32}[code], lengths, pointers, documents


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65499, np.uint16), (65500, np.int32)])
def test_a_reader_of_megatrons_format_gets_every_document_back(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    ordered = sorted(DOCUMENTS, key=hash64)
    with ShardWriter(tmp_path / "shard", token_dtype(vocab_size)) as writer:
        for document in ordered:
            writer.add(document, DOCUMENTS[document])
    found_dtype, lengths, pointers, boundaries = parse_idx((tmp_path / "shard.idx").read_bytes())
    tokens = (tmp_path / "shard.bin").read_bytes()
    found = [
        np.frombuffer(tokens, dtype, length, pointer).tolist()
        for length, pointer in zip(lengths, pointers, strict=True)
    ]
    assert found_dtype is dtype
    assert found == [DOCUMENTS[document] for document in ordered]
    assert boundaries == list(range(len(ordered) + 1))


def test_a_document_is_found_by_its_id_with_its_tokens(tmp_path: Path, write_shards: Write) -> None:
    (stem,) = write_shards(tmp_path, DOCUMENTS)
    shard = open_shard(stem)
    for document, tokens in DOCUMENTS.items():
        index = shard.find(document)
        assert index is not None
        assert shard.tokens[shard.start(index) : shard.start(index + 1)].tolist() == tokens
        assert shard.document_id(index) == document
    assert shard.find("a/3") is None


def test_two_dots_in_a_stem_do_not_run_together(tmp_path: Path) -> None:
    for part, token in (("part.1", 1), ("part.2", 2)):
        with ShardWriter(tmp_path / part, token_dtype(10)) as writer:
            writer.add("doc", [token])
    assert open_shard(tmp_path / "part.1").tokens.tolist() == [1]
    assert open_shard(tmp_path / "part.2").tokens.tolist() == [2]


@pytest.mark.parametrize("scan_bytes", [1, 7, 33, 1 << 24])
def test_all_copies_of_a_text_are_found_and_nothing_else(
    tmp_path: Path, write_shards: Write, monkeypatch: pytest.MonkeyPatch, scan_bytes: int
) -> None:
    monkeypatch.setattr("manifest.indexed.SCAN_BYTES", scan_bytes)
    copies = [content_id("a", "text"), content_id("a", "text") + ".2", content_id("b", "text")]
    others = [content_id("a", "other"), "a/" + content_hash("text") + "0", content_hash("text") + "/a"]
    (stem,) = write_shards(tmp_path, {document: [1] for document in copies + others})
    assert sorted(open_shard(stem).find_content(content_hash("text"))) == sorted(copies)


@pytest.mark.parametrize("suffix", [".bin", ".idx", ".ids"])
def test_a_file_that_lost_its_end_is_refused(tmp_path: Path, write_shards: Write, suffix: str) -> None:
    (stem,) = write_shards(tmp_path, DOCUMENTS)
    file = stem.with_name(stem.name + suffix)
    whole = file.read_bytes()
    for kept in range(len(whole)):
        file.write_bytes(whole[:kept])
        with pytest.raises(CorruptArtifact, match=suffix):
            open_shard(stem)


@pytest.mark.parametrize(("suffix", "place"), [(".idx", 0), (".idx", 9), (".idx", 17), (".ids", 0), (".ids", 8)])
def test_a_file_of_another_format_or_count_is_refused(
    tmp_path: Path, write_shards: Write, suffix: str, place: int
) -> None:
    (stem,) = write_shards(tmp_path, DOCUMENTS)
    file = stem.with_name(stem.name + suffix)
    data = bytearray(file.read_bytes())
    data[place] ^= 0x7F
    file.write_bytes(data)
    with pytest.raises(CorruptArtifact, match="build the stream again"):
        open_shard(stem)


@pytest.mark.parametrize("token", [70_000, -1])
@pytest.mark.parametrize("form", [list, np.array])
def test_a_token_that_the_dtype_cannot_hold_is_refused(
    tmp_path: Path, token: int, form: Callable[[list[int]], object]
) -> None:
    with (
        pytest.raises((AssertionError, OverflowError)),
        ShardWriter(tmp_path / "shard", token_dtype(1000)) as writer,
    ):
        writer.add("doc", form([token]))


def test_documents_out_of_order_are_refused(tmp_path: Path) -> None:
    first, second = sorted(["a", "b"], key=hash64)
    with ShardWriter(tmp_path / "shard", token_dtype(10)) as writer:
        writer.add(second, [1])
        with pytest.raises(AssertionError, match="order"):
            writer.add(first, [1])


def test_which_tokens_are_learned_is_kept_beside_them(tmp_path: Path) -> None:
    ordered = sorted(DOCUMENTS, key=hash64)
    with ShardWriter(tmp_path / "shard", token_dtype(1000), masked=True) as writer:
        for document in ordered:
            tokens = DOCUMENTS[document]
            writer.add(document, tokens, None if document == "c" else [t % 2 == 1 for t in tokens])
    stream = TokenStream([open_shard(tmp_path / "shard", masked=True)], 4)
    expected = [t % 2 == 1 or document == "c" for document in ordered for t in DOCUMENTS[document]]
    assert stream.learned(0, stream.tokens).tolist() == expected
    assert stream.learned(stream.tokens - 2, 5).tolist() == expected[-2:] + expected[:3]
    (tmp_path / "shard.mask").write_bytes(b"\1")
    with pytest.raises(CorruptArtifact, match=r"shard.mask has 1 bytes; expected"):
        open_shard(tmp_path / "shard", masked=True)
