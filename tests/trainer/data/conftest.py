"""Builders: a small tokenizer with fill-in-the-middle's tokens, and a mixture of texts that it encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Encoder
from tokenizers import decoders, models, pre_tokenizers, trainers

from manifest.artifact import Opened, open_artifact, relative_uri
from manifest.identity import hash64
from manifest.indexed import ShardWriter, token_dtype
from manifest.mixture import FimTokens, Mixture, Phase, Stream, Tokenizer, TokenShard, View
from manifest.record import Artifact, FileEntry, Shard, digest_of_shards
from manifest.store import LocalStore

SPECIAL = ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"]
END = 0
FIM = FimTokens(prefix=1, middle=2, suffix=3, pad=4)
SAMPLE = [
    "def middle(text):\n    return text[1:-1]  # the rest\n",
    "naïve Gebäude, 東京の天気 и погода в Москве 🎉🎉",
] * 8

Texts = Mapping[str, Sequence[str]]
MakeTextMixture = Callable[..., Opened]


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    """A byte-level BPE of 400 tokens. Special tokens in a text are text."""
    made = Encoder(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False, min_frequency=1
    )
    made.train_from_iterator(SAMPLE, trainer)
    made.encode_special_tokens = True
    return made


def encode(encoder: Encoder, text: str) -> list[int]:
    ids: list[int] = encoder.encode(text, add_special_tokens=False).ids
    return ids


def publish_text_mixture(
    root: Path,
    encoder: Encoder,
    texts: Texts,
    views: Mapping[str, View],
    phases: Mapping[str, Mapping[str, int]],
    *,
    block_tokens: int = 128,
    answers_of: Sequence[str] = (),
) -> Opened:
    """A mixture in a store. answers_of: streams with masks: the second half of each document is learned."""
    store = LocalStore(root)
    base = store.where("mixtures/texts")
    tokenizer = _publish_tokenizer(store, encoder)
    streams = {
        name: _publish_stream(
            store, name, [encode(encoder, text) for text in found], base, block_tokens, name in answers_of
        )
        for name, found in texts.items()
    }
    assert isinstance(tokenizer.manifest, Artifact)
    record = Mixture(
        name="texts",
        tokenizer=Tokenizer(
            uri=relative_uri(tokenizer.uri, base),
            digest=tokenizer.manifest.digest,
            vocab_size=encoder.get_vocab_size(),
            end_of_text=END,
            fim=FIM,
        ),
        block_tokens=block_tokens,
        streams=streams,
        views=dict(views),
        phases=tuple(Phase(name=phase, draw=dict(draws)) for phase, draws in phases.items()),
    )
    with store.draft("mixtures/texts") as draft:
        store.publish("mixtures/texts", draft, record)
    return open_artifact(base)


def _publish_tokenizer(store: LocalStore, encoder: Encoder) -> Opened:
    with store.draft("tokenizers/texts") as draft:
        encoder.save(str(draft / "tokenizer.json"))
        _publish(store, "tokenizers/texts", draft, (_shard(draft / "tokenizer.json", encoder.get_vocab_size()),))
    return open_artifact(store.where("tokenizers/texts"))


def _publish_stream(
    store: LocalStore, name: str, documents: Sequence[list[int]], base: str, block_tokens: int, masked: bool
) -> Stream:
    path = f"tokens/{name}"
    named = sorted(((f"{name}/{i}", ids) for i, ids in enumerate(documents)), key=lambda d: (hash64(d[0]), d[0]))
    count = sum(len(ids) + 1 for _, ids in named)
    with store.draft(path) as draft:
        with ShardWriter(draft / "tokens-0", token_dtype(400), masked=masked) as writer:
            for identifier, ids in named:
                half = [i >= (len(ids) + 1) // 2 for i in range(len(ids) + 1)]
                writer.add(identifier, [*ids, END], half if masked else None)
        suffixes = [".bin", ".idx", ".ids", *([".mask"] if masked else [])]
        shards = tuple(_shard(draft / f"tokens-0{suffix}", len(named)) for suffix in suffixes)
        _publish(store, path, draft, shards)
    opened = open_artifact(store.where(path))
    entries = [FileEntry(path=shard.path, bytes=shard.bytes, sha256=shard.sha256) for shard in shards]
    files: dict[str, Any] = dict(zip(("bin", "idx", "ids", "mask"), entries, strict=False))
    return Stream(
        uri=relative_uri(opened.uri, base),
        id=opened.manifest.id,
        tokens=count,
        documents=len(named),
        blocks=-(-count // block_tokens),
        shards=(TokenShard(**files, tokens=count, documents=len(named)),),
    )


def _publish(store: LocalStore, path: str, draft: Path, shards: tuple[Shard, ...]) -> None:
    digest = digest_of_shards(shards)
    record = Artifact(
        kind="tokens", name=path.split("/")[1], stage="test/1", fingerprint=path, digest=digest, shards=shards
    )
    store.publish(path, draft, record)


def _shard(file: Path, rows: int) -> Shard:
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return Shard(path=file.name, bytes=file.stat().st_size, sha256=sha256, rows=rows, digest=sha256)


@pytest.fixture
def make_text_mixture(tmp_path: Path, encoder: Encoder) -> MakeTextMixture:
    """publish_text_mixture into this test's store."""

    def make(
        texts: Texts, views: Mapping[str, View], phases: Mapping[str, Mapping[str, int]], **options: Any
    ) -> Opened:
        return publish_text_mixture(tmp_path / "store", encoder, texts, views, phases, **options)

    return make
