"""Builders: a mixture of random or patterned tokens, a train recipe, and the sizes beside it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import yaml

from manifest.artifact import Opened, open_artifact, relative_uri
from manifest.identity import hash64
from manifest.indexed import ShardWriter, token_dtype
from manifest.mixture import Mixture, Phase, Stream, Tokenizer, TokenShard, View
from manifest.record import Artifact, FileEntry, Shard, digest_of_shards
from manifest.store import LocalStore

VOCAB = 97
BLOCK = 64
SIZE = {"layers": 2, "width": 16, "heads": 2, "filter": 40, "vocab_size": VOCAB}
ALIBI = {"position": "alibi", "feedforward": "swiglu", "norm": "layernorm", "bias": True, "tied": True}
SCHEDULE = {"shape": "cosine", "warmup_steps": 2, "peak": 0.01, "end": 0.001, "span": "run"}
TWO_LENGTHS = {
    "short": {"seq_len": 16, "tokens_per_step": 128, "schedule": SCHEDULE},
    "long": {"seq_len": 32, "tokens_per_step": 128, "schedule": {"continue": "short"}, "optimizer": "reset"},
}
MUP = {"base_width": 32, "base_filter": 64, "embedding": 10.0, "logits": 1.5, "init_std": 0.05}

if TYPE_CHECKING:
    from trainer.run import Run

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]


def publish_tokens(store: LocalStore, name: str, *, tokens: int, seed: int) -> Opened:
    """A stream in which each token mostly follows from the one before, as documents of 20 to 60 tokens."""
    rng = np.random.default_rng(seed)
    documents: list[tuple[str, list[int]]] = []
    total = 0
    while total < tokens:
        length = int(min(rng.integers(20, 60), tokens - total))
        start, stride = int(rng.integers(1, VOCAB)), 1 + seed % 5
        documents.append((f"{name}/{len(documents)}", [(start + stride * i) % (VOCAB - 1) + 1 for i in range(length)]))
        total += length
    documents.sort(key=lambda document: (hash64(document[0]), document[0]))
    path = f"tokens/{name}"
    with store.draft(path) as draft:
        with ShardWriter(draft / "tokens-00000", token_dtype(VOCAB)) as writer:
            for identifier, ids in documents:
                writer.add(identifier, ids)
        shards = tuple(_shard(draft / f"tokens-00000{suffix}", len(documents)) for suffix in (".bin", ".idx", ".ids"))
        record = Artifact(
            kind="tokens",
            name=name,
            stage="tokenize/1",
            fingerprint=name,
            digest=digest_of_shards(shards),
            shards=shards,
        )
        store.publish(path, draft, record)
    return open_artifact(store.where(path))


def _shard(file: Path, rows: int) -> Shard:
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    return Shard(path=file.name, bytes=file.stat().st_size, sha256=sha256, rows=rows, digest=sha256)


def stream_of(tokens: Opened, base: str, block_tokens: int) -> Stream:
    manifest = tokens.manifest
    assert isinstance(manifest, Artifact)
    bin_, idx, ids = (FileEntry(path=shard.path, bytes=shard.bytes, sha256=shard.sha256) for shard in manifest.shards)
    count = bin_.bytes // token_dtype(VOCAB).itemsize
    documents = manifest.shards[0].rows
    return Stream(
        uri=relative_uri(tokens.uri, base),
        id=manifest.id,
        tokens=count,
        documents=documents,
        blocks=-(-count // block_tokens),
        shards=(TokenShard(bin=bin_, idx=idx, ids=ids, tokens=count, documents=documents),),
    )


def publish_mixture(
    root: Path,
    phases: Mapping[str, Mapping[str, int]],
    *,
    name: str = "mix",
    block_tokens: int = BLOCK,
    tokens: int = 1500,
) -> Opened:
    """A mixture of the streams that the phases draw from, each its own view. phases: {phase: {view: blocks}}."""
    store = LocalStore(root)
    names = sorted({view for draws in phases.values() for view in draws})
    path = f"mixtures/{name}"
    streams = {
        view: stream_of(publish_tokens(store, view, tokens=tokens, seed=seed), store.where(path), block_tokens)
        for seed, view in enumerate(names)
    }
    record = Mixture(
        name=name,
        tokenizer=Tokenizer(uri="none", digest="0", vocab_size=VOCAB, end_of_text=0),
        block_tokens=block_tokens,
        streams=streams,
        views={view: View(of=view, stream=view) for view in names},
        phases=tuple(Phase(name=phase, draw=dict(draws)) for phase, draws in phases.items()),
    )
    with store.draft(path) as draft:
        store.publish(path, draft, record)
    return open_artifact(store.where(path))


@pytest.fixture
def make_mixture(tmp_path: Path) -> MakeMixture:
    """publish_mixture into this test's store."""

    def make(phases: Mapping[str, Mapping[str, int]], **options: Any) -> Opened:
        return publish_mixture(tmp_path / "store", phases, **options)

    return make


@pytest.fixture
def alone_as_among_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker carries out the stage of ZeRO that its recipe names, as it would with others."""
    monkeypatch.setattr("trainer.loop.shared_out", lambda settings, world: settings)


def recipe_fields(**changes: Any) -> dict[str, Any]:
    """A recipe of one phase `main`, muP and ALiBi; `changes` replace whole top-level keys."""
    schedule = {"shape": "linear", "warmup_steps": 2, "peak": 0.01, "end": 0.001}
    fields: dict[str, Any] = {
        "name": "small",
        "architecture": {**ALIBI, "mup": MUP},
        "size": "tiny",
        "engine": {"zero": 1, "micro_batch_tokens": 64},
        "phases": {"main": {"seq_len": 16, "tokens_per_step": 128, "schedule": schedule}},
    }
    return fields | changes


def write_recipe(root: Path, **changes: Any) -> Path:
    """Writes recipes/small/train.yaml and recipes/sizes.yaml; returns the recipe's path."""
    file = root / "recipes" / "small" / "train.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(recipe_fields(**changes), sort_keys=False))
    (file.parent.parent / "sizes.yaml").write_text(yaml.safe_dump({"shared": {"tiny": SIZE}}))
    return file


@pytest.fixture
def make_recipe(tmp_path: Path) -> MakeRecipe:
    """write_recipe in this test's directory."""

    def make(**changes: Any) -> Path:
        return write_recipe(tmp_path, **changes)

    return make


def stop_after(steps: int) -> Callable[[], bool]:
    """Asks a run to stop when it has taken so many steps."""
    calls = iter(range(1, 1000))
    return lambda: next(calls) >= steps


def never() -> bool:
    """Lets a run go to its end."""
    return False


def entered(store: LocalStore, recipe: Path, mixture: Opened) -> tuple[LocalStore, Run]:
    """A run of one worker that is planned and may be trained."""
    from trainer.fit import FitOptions, plan_run
    from trainer.launch import Workers
    from trainer.run import enter
    from trainer.sizes import resolve

    options = FitOptions(recipe=resolve(recipe, None), mixture=mixture.uri, out=store.uri, workers=Workers(None, 1))
    return store, enter(store, plan_run(options, store))


@pytest.fixture(scope="session")
def process_group() -> Iterator[None]:
    """This process as the only worker, so that many engines can be made in it."""
    from trainer.engine import join, leave
    from trainer.place import Place, free_port

    before = dict(os.environ)
    join(Place(rank=0, world=1, local_rank=0, address="127.0.0.1", port=free_port()))
    yield
    leave()
    os.environ.clear()
    os.environ.update(before)
