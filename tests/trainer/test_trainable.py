"""What a phase trains, before anything is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.trainer.conftest import MakeMixture, MakeRecipe, recipe_fields

from manifest.added import ADDED, Added, NewToken
from manifest.artifact import Opened
from manifest.errors import RecipeError
from manifest.store import LocalStore
from trainer.fit import FitOptions, plan_run
from trainer.launch import Workers
from trainer.recipe import TrainRecipe, load_recipe
from trainer.run import Run
from trainer.sizes import resolve
from trainer.trainable import Leg, Trainable, legs, trained

SCHEDULE = {"shape": "constant", "peak": 0.01}
PHASE = {"seq_len": 16, "tokens_per_step": 128, "schedule": SCHEDULE, "optimizer": "reset"}
DRAWS = {"one": {"a": 2}, "two": {"a": 2}, "three": {"a": 2}}
Plan = Callable[..., Run]


@pytest.fixture
def plan(tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe) -> Plan:
    """A run of three phases that train what is given."""
    made: list[Opened] = []

    def make(*trainables: Any, mixture: Opened | None = None) -> Run:
        made.append(mixture or (made[0] if made else make_mixture(DRAWS)))
        phases = {name: PHASE | {"trainable": what} for name, what in zip(DRAWS, trainables, strict=True)}
        options = FitOptions(
            recipe=resolve(make_recipe(phases=phases), None),
            mixture=made[-1].uri,
            out=str(tmp_path / "out"),
            workers=Workers(None, 1),
        )
        return plan_run(options, LocalStore(tmp_path / "out"))

    return make


def said(plan: Plan, *trainables: Any, **options: Any) -> str:
    with pytest.raises(RecipeError) as error:
        plan(*trainables, **options)
    return str(error.value)


def test_phases_that_train_the_same_are_one_leg(plan: Plan) -> None:
    run = plan("embeddings", "embeddings", {"pattern": "layers.0.*"})
    assert [legs(run.recipe.trainables, run.timeline)] == [
        (Leg(Trainable(named="embeddings"), 0, 2), Leg(Trainable(pattern=("layers.0.*",)), 2, 3))
    ]


def test_the_parameters_of_each_choice(plan: Plan) -> None:
    shape = plan("all", "all", "all").shape
    whole = trained(Trainable(named="all"), shape)
    assert len(whole) == 1 + 2 * 18 + 2
    assert trained(Trainable(named="embeddings"), shape) == {"embedding.weight": (128, 16)}
    assert trained(Trainable(new_rows=90), shape) == {"embedding.new_rows": (38, 16)}
    chosen = trained(Trainable(pattern=("layers.*.attention.query.*", "final_norm.weight")), shape)
    assert list(chosen) == [
        "layers.0.attention.query.weight",
        "layers.0.attention.query.bias",
        "layers.1.attention.query.weight",
        "layers.1.attention.query.bias",
        "final_norm.weight",
    ]


def test_an_optimizer_cannot_be_kept_for_other_parameters(make_recipe: MakeRecipe) -> None:
    phases = {"one": PHASE | {"trainable": "embeddings"}, "two": PHASE | {"optimizer": "keep"}}
    with pytest.raises(RecipeError, match=r"'two' trains all, the one before embeddings: .* set `optimizer: reset`"):
        load_recipe(make_recipe(phases=phases))


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        ("everything", "'phases.one.trainable': expected all, embeddings, new_rows"),
        ({"patern": "layers.*"}, "unknown key 'phases.one.trainable.patern'; did you mean 'pattern'?"),
        ({"pattern": "layers.*", "new_rows": 3}, "found ['new_rows', 'pattern']"),
        ({"pattern": "layers.7.*"}, "phases.one.trainable: no parameter matches 'layers.7.*'; there are layers."),
        ({"new_rows": 97}, "new_rows from 97 on, and the vocabulary has 97 tokens"),
    ],
)
def test_what_cannot_be_trained_is_one_clear_error(plan: Plan, trainable: object, expected: str) -> None:
    assert expected in said(plan, trainable, "all", "all")


def test_a_recipe_that_trains_everything_keeps_the_identity_that_it_had() -> None:
    recipe = TrainRecipe.model_validate(recipe_fields())
    assert recipe.identified()["phases"]["main"]["trainable"] == "all"


def test_a_resolved_recipe_is_read_again_as_it_was(plan: Plan) -> None:
    run = plan("embeddings", {"new_rows": 90}, {"pattern": ["layers.*", "final_norm.*"]})
    assert Run.model_validate_json(run.model_dump_json()) == run


def extended(mixture: Opened, added: Added | None) -> Opened:
    """The mixture, its tokenizer beside it with what was added to it."""
    from manifest.artifact import open_artifact
    from manifest.mixture import Mixture
    from manifest.record import Artifact

    store = LocalStore(Path(mixture.uri).parents[1])
    with store.draft("tokenizers/more") as draft:
        if added is not None:
            (draft / ADDED).write_text(added.model_dump_json())
        record = Artifact(kind="tokenizer", name="more", stage="x/1", fingerprint="x", digest="d", shards=())
        store.publish("tokenizers/more", draft, record)
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    tokenizer = manifest.tokenizer.model_copy(update={"uri": "../../tokenizers/more", "digest": "d"})
    with store.draft("mixtures/more") as draft:
        store.publish("mixtures/more", draft, manifest.model_copy(update={"tokenizer": tokenizer, "name": "more"}))
    return open_artifact(store.where("mixtures/more"))


def added_from(first: int, **changes: Any) -> Added:
    tokens = tuple(NewToken(id=first + n, token=f"n{n}", pieces=(1, 2), count=1) for n in range(3))
    return Added(base_size=first, base="b", scripts=("Arab",), tokens=tokens, **changes)


def test_new_rows_are_those_that_were_added_to_the_tokenizer(plan: Plan, make_mixture: MakeMixture) -> None:
    mixture = extended(make_mixture(DRAWS), added_from(94))
    run = plan("new_rows", "all", "all", mixture=mixture)
    assert run.recipe.phases["one"].trainable == Trainable(new_rows=94)


def test_without_added_tokens_new_rows_need_an_id(plan: Plan, make_mixture: MakeMixture) -> None:
    mixture = extended(make_mixture(DRAWS), None)
    assert "was not extended" in said(plan, "new_rows", "all", "all", mixture=mixture)
