"""A small Llama with a tokenizer of its own, and mixtures whose tokenizers are that one, grown, or another."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.dataproc.vocab.conftest import ENGLISH, byte_level, words_in
from transformers import LlamaConfig, LlamaForCausalLM

from dataproc.pipeline import Pipeline
from dataproc.recipe import DataRecipe
from dataproc.stage import Build
from dataproc.workers import Serial
from manifest.artifact import Opened, resolve
from manifest.mixture import Mixture
from manifest.store import LocalStore
from trainer.fit import FitOptions, plan_run
from trainer.launch import Workers
from trainer.run import Run, enter
from trainer.sizes import resolve as resolve_recipe

BLOCK = 64
OLD, ADD = 300, 24
SPECIAL = "<|im_start|>"
SCHEDULE = {"shape": "constant", "peak": 0.003}
PHASES = {"only": {"seq_len": 16, "tokens_per_step": 128, "schedule": SCHEDULE}}
LLAMA: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": OLD,
}

Prepare = Callable[..., tuple[LocalStore, Run]]


@dataclass(frozen=True)
class Mixtures:
    """Of English and Arabic, with a tokenizer that is the base's (`same`), has ADD tokens more (`grown`), or as many in
    place of others (`replaced`). english: as `grown`, but of English alone. special: has SPECIAL more.
    foreign: as `grown`, but nothing is written down of which tokens are new.
    """

    tokenizer: Path
    same: Opened
    grown: Opened
    replaced: Opened
    english: Opened
    special: Opened
    foreign: Opened


def save_llama(directory: Path, tokenizer: Path | None = None, *, seed: int = 0, **settings: Any) -> LlamaForCausalLM:
    """A Llama with random weights, in a directory as transformers writes it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(LlamaConfig(**LLAMA | settings)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    model.save_pretrained(directory)
    if tokenizer is not None:
        (directory / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    return model


def build_mixture(root: Path, name: str, tokenizer: dict[str, Any], *, only: str | None = None) -> Opened:
    """A mixture of raw/ under `root`."""
    sources = ("english", "arabic")
    recipe = DataRecipe.model_validate(
        {
            "name": name,
            "sources": {source: {"files": f"{source}/*"} for source in sources},
            "clean": {"min_chars": 0},
            "dedup": {"scope": "none"},
            "holdout": {"fraction": 0},
            "tokenizer": tokenizer,
            "block_tokens": BLOCK,
            "phases": {"only": {"epochs": dict.fromkeys([only] if only else sources, 1)}},
        }
    )
    (mixture,) = Pipeline(recipe, str(root / "raw"), Build(LocalStore(root / "store"), Serial())).run()
    assert isinstance(mixture, Opened)
    return mixture


def tokenizer_of(mixture: Opened) -> Path:
    """The directory of a mixture's tokenizer."""
    assert isinstance(mixture.manifest, Mixture)
    return Path(resolve(mixture.uri, mixture.manifest.tokenizer.uri))


@pytest.fixture(scope="session")
def mixtures(tmp_path_factory: pytest.TempPathFactory) -> Mixtures:
    root = tmp_path_factory.mktemp("adapt")
    lines = ENGLISH.splitlines()
    texts = {
        "english": [f"{n}. {lines[n % 2]}" for n in range(12)],
        "arabic": [" ".join([*words_in("Arabic", n, 25), lines[n % 2][:20]]) for n in range(12)],
    }
    for source, written in texts.items():
        (root / "raw" / source).mkdir(parents=True)
        rows = "".join(json.dumps({"text": text}) + "\n" for text in written)
        (root / "raw" / source / "0.jsonl").write_text(rows)
    (root / "base").mkdir()
    tokenizer = root / "base" / "tokenizer.json"
    byte_level(OLD).save(str(tokenizer))
    asked = {"base": str(tokenizer.parent), "add": ADD, "on": "arabic"}
    grown = build_mixture(root, "grown", {"extend": asked})
    return Mixtures(
        tokenizer,
        build_mixture(root, "same", {"path": str(tokenizer.parent)}),
        grown,
        build_mixture(root, "replaced", {"replace": asked}),
        build_mixture(root, "english", {"extend": asked}, only="english"),
        build_mixture(root, "special", {"path": str(tokenizer.parent), "special": [SPECIAL]}),
        build_mixture(root, "foreign", {"path": str(tokenizer_of(grown))}),
    )


@pytest.fixture
def llama(tmp_path: Path, mixtures: Mixtures) -> Path:
    """A Llama that goes with the mixtures; its head is not tied."""
    directory = tmp_path / "llama"
    save_llama(directory, mixtures.tokenizer, tie_word_embeddings=False)
    return directory


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """A run in a store of the given name that starts from a base."""

    def make(base: Path | str, mixture: Opened, store_name: str = "out", **changes: Any) -> tuple[LocalStore, Run]:
        file = tmp_path / "recipes" / "adapted" / "train.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        fields = {"name": "adapted", "engine": {"micro_batch_tokens": 64}, "phases": PHASES} | changes
        file.write_text(yaml.safe_dump({key: value for key, value in fields.items() if value is not None}))
        store = LocalStore(tmp_path / store_name)
        recipe = resolve_recipe(file, None, base=str(base), store=store)
        options = FitOptions(recipe=recipe, mixture=mixture.uri, out=store.uri, workers=Workers(None, 1))
        return store, enter(store, plan_run(options, store))

    return make
