"""A run that starts from a model has its weights, says so, and refuses what is not that model's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from tests.trainer.adapt.conftest import LLAMA, OLD, Mixtures, Prepare, save_llama
from tests.trainer.conftest import never, stop_after
from tokenizers import Tokenizer

from manifest.artifact import Opened
from manifest.checkpoint import Checkpoint
from manifest.errors import InputError, NotAnArtifact, RecipeError, WrongArtifact
from manifest.lineage import lineage, nodes
from manifest.store import LocalStore
from trainer.adapt.base import open_base
from trainer.adapt.start import begin_from_model
from trainer.checkpoint import load_model
from trainer.engine import Engine
from trainer.fit import FitOptions, ask
from trainer.huggingface.read import read_hf
from trainer.launch import Workers
from trainer.loop import train
from trainer.model.decoder import build
from trainer.recipe import EngineRecipe, OptimizerRecipe
from trainer.run import Run
from trainer.sizes import resolve
from trainer.trainable import ALL

pytestmark = pytest.mark.usefixtures("process_group")

TOKENS = torch.tensor([[5, 80, 17, 299, 3, 250, 33]])


def trained(store: LocalStore, run: Run, stop: Callable[[], bool] = never) -> Checkpoint:
    """The newest checkpoint of a run that was taken to its end, or until it is stopped."""
    train(store, run, stop)
    last = store.manifest(f"{run.path}/checkpoints/{store.list(f'{run.path}/checkpoints')[-1]}")
    assert isinstance(last, Checkpoint)
    return last


def logits(store: LocalStore, run: Run, step: int) -> torch.Tensor:
    decoder, _ = load_model(store.where(run.checkpoint_path(step)))
    with torch.no_grad():
        found: torch.Tensor = decoder(TOKENS)
    return found


@pytest.mark.parametrize("tied", [True, False])
def test_a_run_begins_with_the_weights_of_a_llama(
    tied: bool, tmp_path: Path, mixtures: Mixtures, prepare: Prepare
) -> None:
    model = save_llama(tmp_path / "llama", mixtures.tokenizer, tie_word_embeddings=tied)
    store, run = prepare(tmp_path / "llama", mixtures.same)
    trained(store, run, stop_after(1))
    assert run.shape.architecture.tied is tied
    with torch.no_grad():
        expected = model(TOKENS).logits
    torch.testing.assert_close(logits(store, run, 0)[..., :OLD], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16")])
def test_every_stage_of_zero_begins_with_them(
    stage: Literal[0, 1, 2, 3], precision: Literal["fp32", "bf16"], llama: Path, mixtures: Mixtures, prepare: Prepare
) -> None:
    store, run = prepare(llama, mixtures.same)
    engine = Engine(build(run.shape, seed=1), OptimizerRecipe(), EngineRecipe(zero=stage, precision=precision))
    begin_from_model(engine, run, store.where(run.path), ALL)
    for name, expected in read_hf(llama).tensors():
        assert torch.equal(engine.gather(name)[: len(expected)], expected)
    engine.close()


def test_a_run_begins_where_a_checkpoint_of_another_ended(
    llama: Path, mixtures: Mixtures, prepare: Prepare, tmp_path: Path
) -> None:
    store, first = prepare(llama, mixtures.same)
    last = trained(store, first)
    assert last.step > 2
    checkpoint = store.where(first.checkpoint_path(last.step))
    store, second = prepare(checkpoint, mixtures.same, name="second")
    begun = trained(store, second, stop_after(1))
    assert torch.equal(logits(store, second, 0), logits(store, first, last.step))
    kinds = [node.kind for node in nodes(lineage(store.where(second.checkpoint_path(begun.step))))]
    assert kinds.count("checkpoint") == 2


def test_lineage_shows_the_base_with_the_hashes_of_its_files(llama: Path, mixtures: Mixtures, prepare: Prepare) -> None:
    store, run = prepare(llama, mixtures.same)
    last = trained(store, run, stop_after(1))
    where = store.where(run.checkpoint_path(last.step))

    def of_base() -> dict[str, str]:
        (base,) = [child for child in lineage(where, verify=True).children if child.kind == "bases"]
        return {child.name: child.state for child in base.children}

    names = ("config.json", "model.safetensors", "tokenizer.json")
    assert of_base() == {f"llama/{name}": "ok" for name in names}
    (llama / "tokenizer.json").write_text("{}")
    assert of_base()["llama/tokenizer.json"] == "changed"


def test_a_run_goes_on_without_its_base_as_it_would_have_with_it(
    llama: Path, mixtures: Mixtures, prepare: Prepare
) -> None:
    grown = {"vocabulary": {"new_rows": "mean_of_pieces"}}
    through = trained(*prepare(llama, mixtures.grown, "through", **grown))
    store, run = prepare(llama, mixtures.grown, "stopped", **grown)
    trained(store, run, stop_after(2))
    shutil.rmtree(llama)
    store, again = prepare(llama, mixtures.grown, "stopped", **grown)
    assert again == run
    resumed = trained(store, again)
    assert (resumed.weights, resumed.moments) == (through.weights, through.moments)


def test_the_base_is_part_of_what_makes_a_run_that_run(
    llama: Path, mixtures: Mixtures, prepare: Prepare, tmp_path: Path
) -> None:
    _, run = prepare(llama, mixtures.same)
    moved = tmp_path / "elsewhere" / "llama"
    shutil.copytree(llama, moved)
    assert prepare(moved, mixtures.same, "other")[1].identity == run.identity
    save_llama(moved, mixtures.tokenizer, seed=1, tie_word_embeddings=False)
    assert prepare(moved, mixtures.same, "other")[1].identity != run.identity


def test_a_base_that_was_changed_after_the_run_was_planned_is_not_read(
    llama: Path, mixtures: Mixtures, prepare: Prepare
) -> None:
    store, run = prepare(llama, mixtures.same)
    save_llama(llama, mixtures.tokenizer, seed=1, tie_word_embeddings=False)
    with pytest.raises(WrongArtifact, match=r"model\.safetensors is not the file of SHA-256"):
        train(store, run, never)


def other_tokens(tokenizer: Path) -> None:
    content = json.loads(tokenizer.read_text())
    vocab = content["model"]["vocab"]
    one, two = [token for token, number in vocab.items() if number in (290, 291)]
    vocab[one], vocab[two] = vocab[two], vocab[one]
    tokenizer.write_text(json.dumps(content))


def other_merges(tokenizer: Path) -> None:
    content = json.loads(tokenizer.read_text())
    merges = content["model"]["merges"]
    merges[0], merges[1] = merges[1], merges[0]
    tokenizer.write_text(json.dumps(content))


def other_settings(tokenizer: Path) -> None:
    content = json.loads(tokenizer.read_text())
    content["model"]["ignore_merges"] = True
    tokenizer.write_text(json.dumps(content))


def other_cuts(tokenizer: Path) -> None:
    content = json.loads(tokenizer.read_text())
    content["pre_tokenizer"]["add_prefix_space"] = True
    tokenizer.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (other_tokens, r"2 of its 300 tokens have no such id \('.*' was 290, there 291, "),
        (other_merges, "its merge 1 is another there, so text is cut otherwise"),
        (other_settings, "ignore_merges of its model is True, there False, so text is cut otherwise"),
        (other_cuts, "its pre_tokenizer is "),
    ],
)
@pytest.mark.parametrize("grown", [False, True])
def test_a_tokenizer_that_is_not_the_models_is_refused(
    harm: Callable[[Path], None], said: str, grown: bool, llama: Path, mixtures: Mixtures, prepare: Prepare
) -> None:
    harm(llama / "tokenizer.json")
    with pytest.raises(WrongArtifact, match="was made with a tokenizer .* that is not the one of .*" + said):
        prepare(llama, mixtures.grown if grown else mixtures.same, vocabulary={"new_rows": "mean_of_pieces"})


def test_tokens_that_the_model_has_not_are_refused_unless_the_recipe_says_how_they_begin(
    llama: Path, mixtures: Mixtures, prepare: Prepare
) -> None:
    with pytest.raises(RecipeError, match=r"has 24 tokens that .*llama has not; say how .* `vocabulary: \{new_rows"):
        prepare(llama, mixtures.grown)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"size": "tiny"}, r"size 'tiny' has layers 3 \(the base has 2\), heads 8 \(the base has 4\), kv_heads 8"),
    (
        {
            "architecture": {
                "position": "rope",
                "feedforward": "swiglu",
                "norm": "layernorm",
                "bias": False,
                "tied": True,
                "norm_eps": 1e-6,
            }
        },
        "architecture: norm is 'layernorm', the base's 'rmsnorm'; tied is True, the base's False. Leave",
    ),
]


@pytest.mark.parametrize(("changes", "said"), WRONG)
def test_an_architecture_or_size_that_is_not_the_models_is_refused(
    changes: dict[str, Any], said: str, llama: Path, mixtures: Mixtures, prepare: Prepare, tmp_path: Path
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "sizes.yaml").write_text(
        "shared: {tiny: {layers: 3, width: 32, heads: 8, filter: 48}, same: {layers: 2, width: 32, heads: 4, "
        "kv_heads: 2, filter: 48, warmup_steps: 1}}"
    )
    with pytest.raises(RecipeError, match=said):
        prepare(llama, mixtures.same, **changes)
    assert prepare(llama, mixtures.same, size="same")[1].size == "same"


def test_a_recipe_needs_a_model_or_an_architecture(
    mixtures: Mixtures, tmp_path: Path, make_recipe: Callable[..., Path]
) -> None:
    with pytest.raises(RecipeError, match="architecture and size missing; give them, or a model that has them"):
        resolve(make_recipe(architecture=None, size=None), None)
    recipe = resolve(make_recipe(vocabulary={"new_rows": "random"}), None)
    with pytest.raises(RecipeError, match="vocabulary says how embeddings grow, and there is no model"):
        ask(FitOptions(recipe, mixtures.grown.uri, str(tmp_path), Workers(None, 1)))


def test_what_is_no_model_says_so(llama: Path, mixtures: Mixtures, prepare: Prepare, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none is no model: there is no such directory; give one with a config"):
        open_base(str(tmp_path / "none"))
    with pytest.raises(WrongArtifact, match=r"is a mixture .*; a run starts from a checkpoint"):
        open_base(mixtures.same.uri)
    store, run = prepare(llama, mixtures.same)
    trained(store, run, stop_after(1))
    with pytest.raises(NotAnArtifact, match=r"is a run; give one of its checkpoints, such as .*00000001"):
        open_base(store.where(run.path))
    (llama / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"has no tokenizer\.json"):
        prepare(llama, mixtures.same)


def test_rows_of_the_model_beyond_its_tokenizer_stay(tmp_path: Path, mixtures: Mixtures, prepare: Prepare) -> None:
    save_llama(tmp_path / "padded", mixtures.tokenizer, vocab_size=OLD + 30, tie_word_embeddings=False)
    store, run = prepare(tmp_path / "padded", mixtures.same)
    assert run.shape.vocab_size == OLD + 30
    trained(store, run, stop_after(1))
    decoder, _ = load_model(store.where(run.checkpoint_path(0)))
    expected = dict(read_hf(tmp_path / "padded").tensors())["embedding.weight"]
    assert torch.equal(decoder.embedding.weight[: OLD + 30], expected[: OLD + 30])
    assert LLAMA["vocab_size"] == OLD


def test_an_export_is_a_base_whose_lineage_goes_on(
    llama: Path, mixtures: Mixtures, prepare: Prepare, tmp_path: Path
) -> None:
    from trainer.huggingface.export import ExportOptions, export

    store, run = prepare(llama, mixtures.same)
    last = trained(store, run)
    exported: Opened = export(ExportOptions(store.where(run.checkpoint_path(last.step)), tmp_path / "export"))
    assert Tokenizer.from_file(str(tmp_path / "export" / "tokenizer.json")).get_vocab_size() == OLD
    store, second = prepare(exported.uri, mixtures.same, name="second")
    begun = trained(store, second, stop_after(1))
    assert torch.equal(logits(store, second, 0)[..., :OLD], logits(store, run, last.step)[..., :OLD])
    found = [(node.kind, node.state) for node in nodes(lineage(store.where(second.checkpoint_path(begun.step))))]
    assert ("export", "ok") in found
    assert found.count(("checkpoint", "ok")) == 2
