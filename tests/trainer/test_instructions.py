"""Instructions from raw records to what a run learns of them: Med42's template, packed, several times over."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.trainer.adapt.conftest import OLD, byte_level
from tests.trainer.conftest import recipe_fields
from tokenizers import Tokenizer

from dataproc.pipeline import Build, Pipeline
from dataproc.recipe import DataRecipe
from dataproc.workers import Serial
from manifest.artifact import Opened
from manifest.errors import RecipeError
from manifest.mixture import Mixture
from manifest.store import LocalStore
from trainer.data.loader import StepBatch, step_source
from trainer.engine import Engine
from trainer.fit import FitOptions, plan_run
from trainer.launch import Workers
from trainer.loss import window_losses
from trainer.model.decoder import build
from trainer.packs import open_packs
from trainer.recipe import EngineRecipe, OptimizerRecipe
from trainer.run import Run, enter
from trainer.sizes import resolve

SYSTEM = "<|system|>: You are a helpful medical assistant created by M42 Health in the UAE.\n"
PAIRS = [
    {
        "id": str(n),
        "question": f"What is number {n}?",
        "answer": " ".join(["It is", str(n) * (1 + n % 5)] * (1 + n % 3)),
    }
    for n in range(23)
]
EPOCHS, SEQ_LEN = 3, 256
PHASE = {
    "seq_len": SEQ_LEN,
    "tokens_per_step": 4 * SEQ_LEN,
    "schedule": {"shape": "constant", "peak": 0.001},
    "loss_on": "answer",
    "packing": "best_fit",
}
Prepare = Callable[..., tuple[LocalStore, Run]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("instructions") / "tokenizer.json"
    byte_level(OLD).save(str(file))
    return file


@pytest.fixture(scope="module")
def mixture(tokenizer: Path) -> Opened:
    root = tokenizer.parent
    (root / "raw" / "qa").mkdir(parents=True)
    (root / "raw" / "qa" / "0.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    recipe = DataRecipe.model_validate(
        {
            "name": "instructions",
            "sources": {"qa": {"files": "qa/*", "prompt": "question", "answer": "answer", "id": "id"}},
            "clean": {"min_chars": 0},
            "dedup": {"scope": "none"},
            "holdout": {"fraction": 0},
            "tokenizer": {"path": str(root)},
            "block_tokens": 2 * SEQ_LEN,
            "views": {"instructions": {"of": "qa", "template": "med42"}},
            "phases": {"tune": {"epochs": {"instructions": EPOCHS}}},
        }
    )
    (made,) = Pipeline(recipe, str(root / "raw"), Build(LocalStore(root / "store"), Serial())).run()
    assert isinstance(made, Opened)
    return made


@pytest.fixture
def prepare(tmp_path: Path, mixture: Opened, make_recipe: Callable[..., Path]) -> Prepare:
    def make(**changes: Any) -> tuple[LocalStore, Run]:
        fields = recipe_fields(phases={"tune": PHASE | changes})
        store = LocalStore(tmp_path / "out")
        recipe = resolve(make_recipe(**fields), None)
        options = FitOptions(recipe=recipe, mixture=mixture.uri, out=store.uri, workers=Workers(None, 1))
        return store, enter(store, plan_run(options, store))

    return make


def spelled(tokenizer: Path, end: int) -> dict[str, tuple[list[int], int]]:
    """Of each record the tokens of template, question and answer, and where the answer begins: from the card."""
    encoder = Tokenizer.from_file(str(tokenizer))
    found = {}
    for pair in PAIRS:
        before = encoder.encode(f"{SYSTEM}<|prompter|>:{pair['question']}\n<|assistant|>:").ids
        found[pair["id"]] = [*before, *encoder.encode(pair["answer"]).ids, end], len(before)
    return found


def batches(store: LocalStore, run: Run, mixture: Opened) -> list[StepBatch]:
    packs = open_packs(store.where(run.path), run.packs)
    source = step_source(mixture, run.timeline, rank=0, world=1, phases=run.recipe.phases, packs=packs)
    return [source.read(step) for step in range(run.timeline.total_steps)]


def end_of(mixture: Opened) -> int:
    assert isinstance(mixture.manifest, Mixture)
    return mixture.manifest.tokenizer.end_of_text


def test_every_epoch_learns_every_answer_token_and_no_other(prepare: Prepare, mixture: Opened, tokenizer: Path) -> None:
    expected = Counter((tuple(ids), first) for ids, first in spelled(tokenizer, end_of(mixture)).values())
    found: Counter[tuple[tuple[int, ...], int]] = Counter()
    for batch in batches(*prepare(), mixture):
        assert batch.documents is not None
        for row, owners, weights in zip(batch.tokens, batch.documents, batch.weights, strict=True):
            for owner in range(owners.max() + 1):
                own = np.flatnonzero(owners == owner)
                learned = weights[own[1:] - 1]  # of every token but the first of the document
                first = 1 + int(learned.argmax())
                assert learned.tolist() == [0.0] * (first - 1) + [1.0] * (len(own) - first)
                found[tuple(row[own].tolist()), first] += 1
            assert not weights[owners[1:] < 0].any()
    assert set(found) == set(expected)
    assert all(count >= EPOCHS * expected[document] for document, count in found.items())
    assert found.total() <= EPOCHS * expected.total() + 2 * (2 * SEQ_LEN // 60)  # the pack's last block wraps


@pytest.mark.usefixtures("process_group")
def test_the_loss_of_packed_windows_is_that_of_each_answer_after_its_own_prompt_alone(
    prepare: Prepare, mixture: Opened
) -> None:
    store, run = prepare()
    batch = batches(store, run, mixture)[0]
    engine = Engine(build(run.shape, seed=1), OptimizerRecipe(), EngineRecipe())
    packed = engine.step(batch, 0.0).losses
    engine.close()
    decoder = build(run.shape, seed=1).eval()
    assert batch.documents is not None
    for row, owners, weights, loss in zip(batch.tokens, batch.documents, batch.weights, packed, strict=True):
        alone = torch.zeros(())
        for owner in range(owners.max() + 1):
            own = np.flatnonzero(owners == owner)
            ids = torch.from_numpy(row[own])[None]
            with torch.no_grad():
                learned = torch.from_numpy(weights[own[1:] - 1])[None]
                alone = alone + window_losses(decoder(ids[:, :-1]), ids[:, 1:], learned)[0]
        torch.testing.assert_close(loss, alone, atol=1e-3, rtol=1e-5)


def test_an_answer_that_no_window_shows_whole_is_refused_unless_it_may_be_cut(
    prepare: Prepare, tokenizer: Path
) -> None:
    lengths = [len(ids) - first for ids, first in spelled(tokenizer, 0).values()]
    short = 16
    long = sum(length >= short for length in lengths)
    assert 0 < long < len(lengths)
    with pytest.raises(RecipeError) as error:
        prepare(seq_len=short, tokens_per_step=4 * short)
    assert (
        f"phases.tune.seq_len: found {short}, and {long} of {len(PAIRS)} answers of stream instructions are longer "
        f"than a window shows, up to {max(lengths)} tokens (qa/"
    ) in str(error.value)
    _, run = prepare(seq_len=short, tokens_per_step=4 * short, long_answers="cut")
    assert run.timeline.total_steps > 0
    prepare(seq_len=32, tokens_per_step=128, loss_on="all")
