"""What a run would be: parameters, tokens, steps, FLOPs, memory per stage of ZeRO. Arithmetic only; trains nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from manifest.artifact import open_artifact
from manifest.checkpoint import Timeline
from manifest.errors import RecipeError
from manifest.mixture import Mixture
from manifest.record import Model

from trainer.model.shape import Shape
from trainer.recipe import PhaseRecipe, TrainRecipe, load_recipe
from trainer.sizes import Size, at_size, load_size, shape_of, sizes_file
from trainer.timeline import make_timeline, run_seed

WORKERS = (1, 8, 64)
"""Numbers of workers for which the plan says how much memory each needs."""


class PhasePlan(Model):
    """One phase. `steps` and what follows from it are None where neither a mixture nor the recipe says how many."""

    name: str
    seq_len: int
    tokens_per_step: int
    flops_per_token: float
    steps: int | None = None
    tokens: int | None = None
    flops: float | None = None


class Plan(Model):
    """A run before it is one. memory_bytes: per stage and number of workers, for each worker, without activations."""

    recipe: str
    size: str
    parameters: int
    embedding_parameters: int
    non_embedding_parameters: int
    vocab_size: int
    padded_vocab: int
    phases: tuple[PhasePlan, ...]
    steps: int | None
    tokens: int | None
    flops: float | None
    memory_bytes: dict[str, dict[str, int]]
    notes: tuple[str, ...] = ()


def make_plan(recipe_file: Path, *, size: str | None = None, mixture: str | None = None, tokens: int | None = None) -> Plan:
    """The plan of a recipe at a size, over a mixture if one is given. Raises RecipeError, ArtifactError."""
    recipe = load_recipe(recipe_file)
    size = size or recipe.size
    entry = load_size(sizes_file(recipe_file), recipe.name, size)
    paced, notes = at_size(recipe, entry)
    if mixture is None:
        vocab_size = _stated_vocab(recipe_file, size, entry)
        phases = tuple(_stated(name, paced, entry, vocab_size) for name in paced.phases)
    else:
        manifest = open_artifact(mixture, kind="mixture").manifest
        assert isinstance(manifest, Mixture)
        vocab_size = manifest.tokenizer.vocab_size
        seed = run_seed(manifest, 0)
        timeline = make_timeline(manifest, paced, where=str(recipe_file), seed=seed, tokens=tokens)
        phases = tuple(_read(segment, name, paced, timeline, entry, vocab_size) for segment, name in enumerate(paced.phases))
    shape = shape_of(paced, entry, vocab_size)
    return Plan(
        recipe=recipe.name,
        size=size,
        parameters=shape.parameters,
        embedding_parameters=shape.embedding_parameters,
        non_embedding_parameters=shape.parameters - shape.embedding_parameters,
        vocab_size=vocab_size,
        padded_vocab=shape.padded_vocab,
        phases=phases,
        steps=_total(phase.steps for phase in phases),
        tokens=_total(phase.tokens for phase in phases),
        flops=_total(phase.flops for phase in phases),
        memory_bytes=memory_bytes(shape.parameters),
        notes=tuple(notes),
    )
