"""Builders: a small mixture made by the real pipeline, and checkpoints of a small decoder over it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import save_file

from dataproc.documents import file_sha256
from dataproc.pipeline import Pipeline
from dataproc.recipe import DataRecipe
from dataproc.stage import Build
from dataproc.workers import Serial
from manifest.artifact import Opened, open_artifact, relative_uri
from manifest.checkpoint import Checkpoint, TensorFile
from manifest.mixture import Mixture
from manifest.record import Reference
from manifest.store import open_store
from trainer.model.decoder import build
from trainer.model.shape import Architecture, Shape
from trainer.recipe import TrainRecipe
from trainer.timeline import make_timeline, tokens_before

SEQ_LEN = 32
ARCHITECTURE = {"position": "alibi", "feedforward": "swiglu", "norm": "layernorm", "bias": True, "tied": True}
SCHEDULE = {"shape": "constant", "peak": 0.01}


def tiny_shape(vocab_size: int, **architecture: object) -> Shape:
    return Shape(
        layers=1,
        width=16,
        heads=2,
        kv_heads=2,
        head_dim=8,
        filter=24,
        vocab_size=vocab_size,
        architecture=Architecture.model_validate({**ARCHITECTURE, **architecture}),
    )


def make_mixture(root: Path, *, documents: int = 40, holdout: float = 0.3) -> Opened:
    """raw/ and a mixture under root/store; 'rare' has a tenth of the documents of 'web' and 'code'."""
    rng = random.Random(documents)
    for source, count in (("web", documents), ("code", documents), ("rare", documents // 10)):
        file = root / "raw" / source / "part.jsonl"
        file.parent.mkdir(parents=True)
        texts = (" ".join(f"{rng.choice('αβcdefgh')}{rng.randint(0, 99)}" for _ in range(60)) for _ in range(count))
        file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    recipe = DataRecipe.model_validate(
        {
            "name": "tiny",
            "sources": {name: {"files": f"{name}/*"} for name in ("web", "code", "rare")},
            "clean": {"min_chars": 0},
            "holdout": {"fraction": holdout, "max_share": 0.5},
            "tokenizer": {"train": {"vocab_size": 300}},
            "block_tokens": 64,
            "phases": {"short": {"epochs": {"web": 1, "code": 1}}, "long": {"epochs": {"code": 0.5}}},
        }
    )
    store = open_store(root / "store")
    (mixture,) = Pipeline(recipe, str(root / "raw"), Build(store, Serial())).run()
    assert isinstance(mixture, Opened)
    return mixture


def make_checkpoint(
    mixture: Opened, step: int, *, seed: int = 0, vocab_size: int = 320, run: str = "tiny", **architecture: object
) -> Path:
    """A checkpoint of a freshly initialised decoder, in the mixture's store: runs/<run>/checkpoints/<step>."""
    record = mixture.manifest
    assert isinstance(record, Mixture)
    phase = {"seq_len": SEQ_LEN, "tokens_per_step": 8 * SEQ_LEN, "schedule": SCHEDULE}
    recipe = TrainRecipe.model_validate(
        {
            "name": "tiny",
            "architecture": ARCHITECTURE,
            "size": "tiny",
            "phases": {"short": {**phase, "seq_len": 16}, "long": phase},
        }
    )
    timeline = make_timeline(record, recipe, where="recipe", seed=0, tokens=None)
    store = open_store(Path(mixture.uri).parent.parent)
    path = f"runs/{run}/checkpoints/{step:08d}"
    decoder = build(tiny_shape(vocab_size, **architecture), seed=seed)
    with store.draft(path) as draft:
        weights = {name: parameter.detach() for name, parameter in decoder.named_parameters()}
        file = draft / "weights-00000.safetensors"
        save_file(weights, file)
        entry = TensorFile(
            path=file.name, bytes=file.stat().st_size, sha256=file_sha256(file), parameters=tuple(weights)
        )
        uri = relative_uri(mixture.uri, store.where(path))
        store.publish(
            path,
            draft,
            Checkpoint(
                name=f"{run}/{step:08d}",
                run=run,
                step=step,
                tokens=tokens_before(timeline, step),
                full=False,
                timeline=timeline,
                weights=(entry,),
                inputs={"tiny": Reference(kind="mixture", name=record.name, id=record.id, uri=uri)},
                state={"model": decoder.shape.model_dump(mode="json")},
            ),
        )
    return Path(store.where(path))


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Opened:
    return make_mixture(tmp_path_factory.mktemp("evalkit"))


@pytest.fixture(scope="session")
def untrained(mixture: Opened) -> Path:
    return make_checkpoint(mixture, 0)


@pytest.fixture(scope="session")
def trained(mixture: Opened, untrained: Path) -> Path:
    """Not trained, but another model: what evalkit must do with it is the same."""
    return make_checkpoint(mixture, 11, seed=7)


@pytest.fixture(scope="session")
def mixture_of() -> Callable[..., Opened]:
    return make_mixture


@pytest.fixture(scope="session")
def checkpoint_of() -> Callable[..., Path]:
    return make_checkpoint


@pytest.fixture(scope="session")
def heldout(mixture: Opened) -> Opened:
    record = mixture.manifest
    assert isinstance(record, Mixture)
    assert record.heldout is not None
    return open_artifact(Path(mixture.uri) / record.heldout.uri)


@pytest.fixture
def recipe_file(tmp_path: Path) -> Callable[[str], Path]:
    """Writes an eval recipe."""

    def write(text: str) -> Path:
        file = tmp_path / "eval.yaml"
        file.write_text(text, encoding="utf-8")
        return file

    return write
