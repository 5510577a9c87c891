"""An export for Megatron is read back by a reader of its own, written from the format, and says what phases draw."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import struct
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from dataproc.export import datasets, megatron
from dataproc.export.datasets import Dataset, write
from manifest.artifact import open_artifact, verify
from manifest.errors import CorruptArtifact, InputError, NotAnArtifact, WrongArtifact
from manifest.identity import hash64
from manifest.indexed import ShardWriter, token_dtype
from manifest.mixture import TokenShard
from manifest.record import FileEntry

TYPES = {1: "B", 2: "b", 3: "h", 4: "i", 5: "q", 8: "H"}
"""Megatron's codes of the whole-number types, as `array` has them."""


def read_indexed(prefix: Path) -> tuple[int, list[list[int]]]:
    """A dataset in Megatron's indexed format: the code of its type, and the tokens of each document."""
    index, data = (prefix.with_name(prefix.name + suffix).read_bytes() for suffix in (".idx", ".bin"))
    magic, version, code, sequences, boundaries = struct.unpack_from("<9sQBQQ", index)
    assert (magic, version) == (b"MMIDIDX\0\0", 1)
    place = struct.calcsize("<9sQBQQ")
    lengths = struct.unpack_from(f"<{sequences}i", index, place)
    pointers = struct.unpack_from(f"<{sequences}q", index, place + 4 * sequences)
    ends = struct.unpack_from(f"<{boundaries}q", index, place + 12 * sequences)
    assert len(index) == place + 12 * sequences + 8 * boundaries
    assert ends == tuple(range(sequences + 1))  # a document is a sequence
    tokens = array(TYPES[code], data)
    starts = [pointer // tokens.itemsize for pointer in pointers]
    assert [*starts, len(tokens)] == [0, *np.cumsum(lengths, dtype=int).tolist()]
    return code, [tokens[s : s + n].tolist() for s, n in zip(starts, lengths, strict=True)]


def key(identifier: str) -> bytes:
    return hashlib.blake2b(identifier.encode(), digest_size=8).digest()


def expected(sliced: Any, stream: str) -> list[list[int]]:
    """The documents of a stream, as a tokenizer of its own makes them from the deduplicated texts."""
    takes = {
        "web": lambda row: True,
        "code_even": lambda row: key(row["id"])[-1] % 2 == 0,
        "code_mit": lambda row: '"MIT"' in row["meta"],
    }[stream]
    rows = [row for row in sliced.rows("deduped", stream.partition("_")[0]) if takes(row)]
    encoder = Tokenizer.from_file(str(sliced.artifact("tokenizers", "bpe").directory / "tokenizer.json"))
    rows.sort(key=lambda row: (key(row["id"]), row["id"]))
    return [[*encoder.encode(row["text"]).ids, sliced.mixture.tokenizer.end_of_text] for row in rows]


def blend(out: Path, phase: str) -> dict[str, int]:
    """As Megatron reads it: words, in pairs."""
    found = (out / "blends" / f"{phase}.txt").read_text().split()
    return dict(zip(found[1::2], map(int, found[::2]), strict=True))


@pytest.fixture(scope="module")
def joined(sliced: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("megatron") / "joined"
    return Path(megatron.export(sliced.published[0].uri, out).uri)


@pytest.fixture(scope="module")
def apart(sliced: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("megatron") / "apart"
    return Path(megatron.export(sliced.published[0].uri, out, join_bytes=0).uri)


@pytest.mark.parametrize("stream", ["web", "code_even", "code_mit"])
def test_the_shards_of_a_stream_become_one_dataset_of_its_documents(sliced: Any, joined: Path, stream: str) -> None:
    assert len(sliced.mixture.streams[stream].shards) > 1
    code, documents = read_indexed(joined / f"{stream}_text_document")
    assert code == 8
    assert documents == expected(sliced, stream)


@pytest.mark.parametrize("stream", ["web", "code_even", "code_mit"])
def test_datasets_that_are_not_joined_hold_the_same_end_to_end(sliced: Any, apart: Path, stream: str) -> None:
    prefixes = sorted(path.with_suffix("") for path in apart.glob(f"{stream}-*_text_document.bin"))
    assert len(prefixes) == len(sliced.mixture.streams[stream].shards)
    assert [document for prefix in prefixes for document in read_indexed(prefix)[1]] == expected(sliced, stream)


def test_a_shard_that_is_not_joined_takes_no_space(sliced: Any, apart: Path) -> None:
    shards = sliced.artifact("tokens", "web").directory
    assert os.path.samefile(shards / "tokens-00000.bin", apart / "web-00000_text_document.bin")


def test_where_files_cannot_be_shared_they_are_copied_and_checked(
    sliced: Any, apart: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(datasets.os, "link", refuse)
    monkeypatch.setattr(datasets.fcntl, "ioctl", refuse)
    out = Path(megatron.export(sliced.published[0].uri, tmp_path / "out", join_bytes=0).uri)
    for path in apart.glob("*.bin"):
        assert (out / path.name).read_bytes() == path.read_bytes()
        assert (out / path.name).stat().st_nlink == 1


def test_the_blend_of_a_phase_has_the_tokens_that_it_draws(sliced: Any, joined: Path) -> None:
    mixture = sliced.mixture
    for phase, file in zip(mixture.phases, ("first", "second___last"), strict=True):
        drawn = {f"{joined}/{name}_text_document": n * mixture.block_tokens for name, n in phase.draw.items()}
        assert blend(joined, file) == drawn
        neox = yaml.safe_load((joined / "blends" / f"{file}.neox.yml").read_text())
        assert dict(zip(neox["train_data_paths"], neox["train_data_weights"], strict=True)) == drawn


def test_datasets_of_one_stream_share_what_is_drawn_of_it(sliced: Any, joined: Path, apart: Path) -> None:
    sizes = {path.with_suffix(""): path.stat().st_size // 2 for path in apart.glob("*.bin")}
    whole = blend(joined, "first")
    for stream, tokens in sliced.mixture.streams.items():
        parts = {p: n for p, n in blend(apart, "first").items() if re.match(rf"{apart}/{stream}-\d", p)}
        drawn = whole.get(f"{joined}/{stream}_text_document", 0)
        assert sum(parts.values()) == drawn
        for prefix, share in parts.items():
            assert abs(share - drawn * sizes[Path(prefix)] / tokens.tokens) < 1


def test_views_of_one_stream_add_up_in_its_blend(sliced: Any) -> None:
    from dataproc.export.blend import blend as blend_of

    mixture = sliced.mixture
    again = mixture.views["code_even"].model_copy(update={"of": "code"})
    phase = mixture.phases[0].model_copy(update={"draw": {"web": 3, "code_even": 2, "again": 5}})
    both = mixture.model_copy(update={"views": {**mixture.views, "again": again}, "phases": (phase,)})
    parts = {name: megatron.datasets_of(name, mixture, Path(), megatron.JOIN_BYTES) for name in mixture.streams}
    found = {prefix: tokens // mixture.block_tokens for tokens, prefix in blend_of(both, phase, parts)}
    assert found == {"web_text_document": 3, "code_even_text_document": 7}


def test_the_tokenizer_and_how_to_train_lie_beside_the_tokens(sliced: Any, joined: Path) -> None:
    encoder = Tokenizer.from_file(str(joined / "tokenizer" / "tokenizer.json"))
    assert encoder.get_vocab_size() == sliced.mixture.tokenizer.vocab_size
    page = (joined / "README.md").read_text()
    for said in (f"--data-args-path {joined}/blends/first.txt", f"--train-samples {sliced.mixture.phases[0].blocks}"):
        assert said in page


def test_an_export_is_an_artifact_that_knows_its_mixture(sliced: Any, joined: Path) -> None:
    export = open_artifact(joined, "export").manifest
    assert export.inputs["mixture"].id == sliced.id
    assert (
        verify(joined)
        == sum(path.stat().st_size for path in joined.rglob("*") if path.is_file())
        - (joined / "manifest.json").stat().st_size
    )


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.lists(st.integers(0, 65_499), max_size=5), min_size=1, max_size=6), min_size=2, max_size=4),
    st.sampled_from([65_499, 65_500]),
)
def test_any_shards_are_joined_as_they_are_and_keep_their_type(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[list[int]]], vocab_size: int
) -> None:
    place = tmp_path_factory.mktemp("join")
    made = tuple(shard_of(place / f"t-{n}", documents, vocab_size) for n, documents in enumerate(shards))
    dataset = Dataset("s_text_document", place, made)
    steps = list(write(dataset, place))
    assert len(steps) == dataset.chunks
    code, documents = read_indexed(place / "s_text_document")
    assert code == (8 if vocab_size < 65_500 else 4)
    assert documents == [document for shard in shards for document in shard]


def shard_of(stem: Path, documents: Sequence[list[int]], vocab_size: int) -> TokenShard:
    ids = sorted((f"x/{n}" for n in range(len(documents))), key=lambda i: (hash64(i), i))
    with ShardWriter(stem, token_dtype(vocab_size)) as writer:
        for identifier, tokens in zip(ids, documents, strict=True):
            writer.add(identifier, np.array(tokens, token_dtype(vocab_size)))
    files = {suffix[1:]: entry(stem.with_suffix(suffix)) for suffix in (".bin", ".idx", ".ids")}
    return TokenShard(**files, tokens=writer.tokens, documents=writer.documents)


def entry(path: Path) -> FileEntry:
    data = path.read_bytes()
    return FileEntry(path=path.name, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


# ---- masks, as labels


@pytest.fixture(scope="module")
def answered(build: Any, recipe: Any, write_jsonl: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A mixture of a source with answers and one without, and its export."""
    root = tmp_path_factory.mktemp("answered")
    write_jsonl(root / "raw/qa/0.jsonl", ({"q": f"What is {n}?", "a": f"It is {n}."} for n in range(40)))
    write_jsonl(root / "raw/web/0.jsonl", ({"text": f"Text number {n}, all of it."} for n in range(40)))
    sources = {"qa": {"files": "qa/*", "prompt": "q", "answer": "a"}, "web": {"files": "web/*"}}
    built = build(recipe(sources=sources), root / "raw", root / "store")
    return built, Path(megatron.export(built.published[0].uri, root / "out").uri)


def test_a_stream_with_answers_has_labels_beside_its_tokens(answered: tuple[Any, Path]) -> None:
    built, out = answered
    code, labels = read_indexed(out / "qa_label_document")
    _, documents = read_indexed(out / "qa_text_document")
    mask = (built.artifact("tokens", "qa").directory / "tokens-00000.mask").read_bytes()
    flat = [
        (token, label) for d, own in zip(documents, labels, strict=True) for token, label in zip(d, own, strict=True)
    ]
    assert code == 4
    assert set(mask) == {0, 1}
    assert [label for _, label in flat] == [t if m else -100 for (t, _), m in zip(flat, mask, strict=True)]
    assert not (out / "web_label_document.bin").exists()


def test_a_blend_for_neox_has_labels_for_each_of_its_datasets(answered: tuple[Any, Path]) -> None:
    _, out = answered
    neox = yaml.safe_load((out / "blends" / "only.neox.yml").read_text())
    labels = dict(zip(neox["train_data_paths"], neox["train_label_data_paths"], strict=True))
    tokens = f"{out}/web_text_document"
    assert labels == {f"{out}/qa_text_document": f"{out}/qa_label_document", tokens: tokens}


def test_labels_of_many_chunks_are_those_of_one(answered: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    built, out = answered
    stream = built.mixture.streams["qa"]
    labels = Dataset("again_text_document", built.artifact("tokens", "qa").directory, stream.shards).labelled()
    assert labels is not None
    monkeypatch.setattr(datasets, "CHUNK_BYTES", 64)
    steps = list(write(labels, out.parent))
    assert len(steps) == labels.chunks > 2
    assert read_indexed(out.parent / "again_label_document") == read_indexed(out / "qa_label_document")


# ---- what cannot be exported


@pytest.fixture
def copied(sliced: Any, tmp_path: Path) -> Path:
    """A copy of the store that a test may damage: its mixture."""
    shutil.copytree(sliced.store.root, tmp_path / "store")
    return tmp_path / "store" / "mixtures" / Path(sliced.published[0].uri).name


def tokens_of(mixture: Path, stream: str) -> Path:
    manifest: Any = open_artifact(mixture).manifest
    return Path(os.path.normpath(mixture / manifest.streams[stream].uri))


def test_what_is_no_mixture_is_refused(sliced: Any, tmp_path: Path) -> None:
    with pytest.raises(WrongArtifact, match=r"is a deduped \(web\); expected a mixture"):
        megatron.export(sliced.artifact("deduped", "web").uri, tmp_path / "out")
    with pytest.raises(NotAnArtifact, match=r"has no manifest\.json"):
        megatron.export(str(tmp_path), tmp_path / "out")


def test_tokens_that_are_gone_are_named(copied: Path, tmp_path: Path) -> None:
    shutil.rmtree(tokens_of(copied, "web"))
    with pytest.raises(
        NotAnArtifact, match=r"made from tokens/web \w+, but at .*/tokens/web-\w+ there is none; restore"
    ):
        megatron.export(str(copied), tmp_path / "out")


def test_a_shard_that_is_gone_is_named(copied: Path, tmp_path: Path) -> None:
    (tokens_of(copied, "web") / "tokens-00001.bin").unlink()
    with pytest.raises(CorruptArtifact, match=r"tokens-00001\.bin is missing; the manifest says \d+ bytes"):
        megatron.export(str(copied), tmp_path / "out")


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_shard_that_was_changed_is_found_and_nothing_is_published(copied: Path, tmp_path: Path, suffix: str) -> None:
    file = tokens_of(copied, "web") / f"tokens-00001{suffix}"
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    with pytest.raises(CorruptArtifact, match=rf"tokens-00001\{suffix} has SHA-256 .*; the mixture says"):
        megatron.export(str(copied), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_path_with_a_space_is_refused(sliced: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cuts its list of datasets at spaces"):
        megatron.export(sliced.published[0].uri, tmp_path / "my export")


def test_joining_without_room_is_refused_before_it_begins(
    sliced: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(megatron.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(InputError, match=r"0\.0 GB free.*make space.*--join 0"):
        megatron.export(sliced.published[0].uri, tmp_path / "out")
