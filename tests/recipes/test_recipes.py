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
TRAIN = sorted(path for path in RECIPES.glob("*/train*.yaml") if path.with_name("data.yaml").is_file())
NAMES = sorted({path.parent.name for path in TRAIN})


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def test_there_are_recipes() -> None:
    assert {"demo", "btlm", "crystal", "med42", "slimpajama_dc"} <= set(NAMES)


@pytest.mark.parametrize("file", TRAIN, ids=named)
def test_the_phases_of_data_and_training_have_the_same_names_in_the_same_order(file: Path) -> None:
    data = read(file.with_name("data.yaml"))
    train = load_train_recipe(file)
    assert list(data.phases) == list(train.phases)
    assert all(data.block_tokens % phase.seq_len == 0 for phase in train.phases.values())


@pytest.mark.parametrize("file", TRAIN, ids=named)
def test_the_size_that_a_recipe_names_exists(file: Path) -> None:
    train, sizes = load_train_recipe(file), sizes_file(file)
    assert sizes is not None
    assert load_size(sizes, train.name, train.size).layers > 0


@pytest.mark.parametrize("name", NAMES)
def test_eval_recipes_are_read(name: str) -> None:
    assert load_eval_recipe(RECIPES / name / "eval.yaml").tasks


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*/data*.yaml")), ids=named)
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


@pytest.mark.parametrize("name", ["btlm", "crystal"])
def test_as_many_tokens_are_read_as_the_original_trained_on(name: str) -> None:
    data = read(RECIPES / name / "data.yaml")
    train = load_train_recipe(RECIPES / name / "train.yaml")
    for phase, drawn in data.phases.items():
        steps = train.phases[phase].reference_steps
        assert steps is not None
        assert drawn.tokens == steps * train.phases[phase].tokens_per_step


def test_slimpajama_dc_trains_on_what_each_configuration_draws() -> None:
    train = load_train_recipe(RECIPES / "slimpajama_dc" / "train.yaml").phases["main"]
    for n in range(1, 7):
        drawn = read(RECIPES / "slimpajama_dc" / f"data_dc{n}.yaml").phases["main"].tokens
        assert drawn is not None
        assert train.reference_steps == -(-drawn // train.tokens_per_step)


def test_the_arms_of_the_small_btlm_differ_in_their_lengths_alone() -> None:
    found = [load_train_recipe(RECIPES / "btlm_small" / f"train{arm}.yaml") for arm in ("", "_short", "_long")]
    lengths = [[phase.seq_len for phase in recipe.phases.values()] for recipe in found]
    assert lengths == [[128, 512], [128, 128], [512, 512]]
    same = [recipe.model_dump(exclude={"name": True, "phases": {"__all__": {"seq_len"}}}) for recipe in found]
    assert same[0] == same[1] == same[2]
    tokens = [phase.tokens or 0 for phase in read(RECIPES / "btlm_small" / "data.yaml").phases.values()]
    assert tokens[0] == 3 * tokens[1]


def test_crystal_reads_what_its_settings_say() -> None:
    """Steps · 2,112 windows · 2,048 tokens of each phase, and their shares of code."""
    phases = read(RECIPES / "crystal" / "data.yaml").phases
    steps = {"phase1": 79_721, "phase2": 214_387, "phase3": 27_728}
    assert {name: phase.tokens for name, phase in phases.items()} == {
        name: count * 2112 * 2048 for name, count in steps.items()
    }
    assert [round(sum(phase.weights.values()), 6) for phase in phases.values()] == [1, 1, 1]
    starcoder = [sum(share for view, share in phase.weights.items() if "fim" in view) for phase in phases.values()]
    assert [round(share, 2) for share in starcoder] == [0, 0.63, 0.83]


def test_crystal_halves_do_not_meet_and_its_code_is_rearranged(tmp_path: Path) -> None:
    data = read(RECIPES / "crystal" / "data.yaml")
    languages = ["css", "javascript", "html", "python", "c"]
    for source in data.sources:
        (tmp_path / "raw" / source).mkdir(parents=True)
        lines = [
            json.dumps(
                {
                    "id": f"{n}",
                    "text": f"{source} {n * n} " + f"{n} of {source} {n + 1}. " * (15 + n),
                    "meta": {"lang": lang},
                }
            )
            for n, lang in enumerate(languages * 8)
        ]
        (tmp_path / "raw" / source / "0.jsonl").write_text("\n".join(lines))
    (mixture,) = Pipeline(data, str(tmp_path / "raw"), Build(LocalStore(tmp_path / "store"), Serial())).run()
    assert isinstance(mixture, Opened)
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    streams = open_streams(mixture)

    def ids(stream: str) -> set[str]:
        return {span.document for span in streams[stream].spans(0, manifest.streams[stream].tokens)}

    for source in ("c4", "github"):
        even, odd = ids(f"{source}_even"), ids(f"{source}_odd")
        assert min(len(even), len(odd)) > 0
        assert even & odd == set()
    assert ids("c4_tenth") <= ids("c4_even") | ids("c4_odd")
    four = [ids(f"{language}_fim") for language in languages[:4]]
    assert len(set.union(*four)) == sum(map(len, four)) < len(ids("starcoder_fim"))
    assert {name: view.fim for name, view in manifest.views.items() if view.fim} == {
        "starcoder_fim": 0.9,
        "starcoder_tenth_fim": 0.9,
        **{f"{language}_fim": 0.3 for language in languages[:4]},
    }
    assert manifest.tokenizer.fim is not None
    assert manifest.tokenizer.vocab_size - manifest.tokenizer.fim.prefix == 22


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
