"""Every recipe of the repository can be read, and the halves of a phase fit together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from dataproc.pipeline import Pipeline
from dataproc.recipe import read
from dataproc.stage import Build
from dataproc.workers import Serial
from evalkit.recipe import load_recipe as load_eval_recipe
from manifest.artifact import Opened, open_streams, resolve
from manifest.mixture import Mixture
from manifest.store import LocalStore
from trainer.recipe import load_recipe as load_train_recipe
from trainer.sizes import load_size, sizes_file

RECIPES = Path(__file__).parents[2] / "recipes"
NAMES = sorted(path.parent.name for path in RECIPES.glob("*/train*.yaml"))


def test_there_are_recipes() -> None:
    assert {"demo", "btlm"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_phases_of_data_and_training_have_the_same_names_in_the_same_order(name: str) -> None:
    data = read(RECIPES / name / "data.yaml")
    train = load_train_recipe(RECIPES / name / "train.yaml")
    assert list(data.phases) == list(train.phases)
    assert all(data.block_tokens % phase.seq_len == 0 for phase in train.phases.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_size_that_a_recipe_names_exists(name: str) -> None:
    file = RECIPES / name / "train.yaml"
    train = load_train_recipe(file)
    assert load_size(sizes_file(file), train.name, train.size).layers > 0


@pytest.mark.parametrize("name", NAMES)
def test_eval_recipes_are_read(name: str) -> None:
    assert load_eval_recipe(RECIPES / name / "eval.yaml").tasks


@pytest.mark.parametrize(
    "path", sorted(RECIPES.glob("*/data*.yaml")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_every_data_recipe_is_read(path: Path) -> None:
    assert read(path).streams()


def test_the_configurations_of_slimpajama_dc_differ_in_their_weights_alone() -> None:
    found = [read(RECIPES / "slimpajama_dc" / f"data_dc{n}.yaml") for n in range(1, 7)]
    assert [recipe.name for recipe in found] == [f"dc{n}" for n in range(1, 7)]
    same = [recipe.model_dump(exclude={"name": True, "phases": {"main": {"weights"}}}) for recipe in found]
    assert all(fields == same[0] for fields in same)
    local = read(RECIPES / "slimpajama_dc" / "data_local.yaml")
    assert local.phases == found[5].phases
    assert local.dedup == found[5].dedup.model_copy(update={"scope": "local"})


def test_btlm_reads_as_many_tokens_as_the_paper_trained_on() -> None:
    data = read(RECIPES / "btlm" / "data.yaml")
    train = load_train_recipe(RECIPES / "btlm" / "train.yaml")
    for name, phase in data.phases.items():
        steps = train.phases[name].reference_steps
        assert steps is not None
        assert phase.tokens == steps * train.phases[name].tokens_per_step


def test_med42_learns_answers_alone_in_its_template(tmp_path: Path) -> None:
    directory = tmp_path / "raw" / "medical"
    directory.mkdir(parents=True)
    said = [
        (f"What is disease {n} of {n * n} ?", f"It is number {n}, which {'so ' * n}is not {n + 1}.") for n in range(9)
    ]
    texts = [f"Disease {n}\n\nQuestion: {question}\nAnswer: {answer}" for n, (question, answer) in enumerate(said)]
    lines = [json.dumps({"id": f"{n}", "text": text}) for n, text in enumerate(texts)]
    (directory / "MedQuAD.jsonl").write_text("\n".join(lines))
    (directory / "pubmedqa.jsonl").write_text(
        json.dumps({"id": "p", "text": "Context.\n\nQuestion: So?\nAnswer: Yes."})
    )
    pipeline = Pipeline(
        read(RECIPES / "med42" / "data.yaml"), str(tmp_path / "raw"), Build(LocalStore(tmp_path / "store"), Serial())
    )
    (mixture,) = pipeline.run()
    assert isinstance(mixture, Opened)
    assert isinstance(mixture.manifest, Mixture)
    tokenizer = Tokenizer.from_file(str(Path(resolve(mixture.uri, mixture.manifest.tokenizer.uri)) / "tokenizer.json"))
    stream = open_streams(mixture)["instructions"]
    span = stream.find("medqa/p")
    assert span is not None
    place = span.start, span.stop - span.start
    tokens, learned = stream.read(*place), stream.learned(*place)
    assert tokenizer.decode(tokens[~learned].tolist(), skip_special_tokens=False) == (
        "<|system|>: You are a helpful medical assistant created by M42 Health in the UAE.\n"
        "<|prompter|>:Context.\n\nSo?\n<|assistant|>:"
    )
    assert tokenizer.decode(tokens[learned].tolist(), skip_special_tokens=False) == "Yes.<|endoftext|>"
