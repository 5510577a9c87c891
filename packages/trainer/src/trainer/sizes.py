"""sizes.yaml: how big. `sizes[recipe or "shared"][name]` → the dimensions of the decoder and the pace that fits them.

    btlm:
      full: {layers: 32, width: 2560, heads: 32, filter: 6826, vocab_size: 50257}
      tiny: {layers: 4, …, tokens_per_step: 16384, warmup_steps: 10}

The file lies beside the recipe's directory. A size may lower a recipe's tokens per step and warm-up: a batch of millions
of tokens is not to be had on a laptop.
"""

from __future__ import annotations

from pathlib import Path

from manifest.errors import RecipeError
from manifest.fields import validate
from manifest.record import Model
from pydantic import Field

from trainer.model.shape import Shape
from trainer.reading import read_yaml
from trainer.recipe import Count, PhaseRecipe, TrainRecipe

SHARED = "shared"


class Size(Model):
    """One entry. kv_heads and head_dim default to heads and width / heads; vocab_size is for plans without a mixture."""

    layers: int = Field(gt=0)
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    filter: int = Field(gt=0)
    kv_heads: int | None = Field(default=None, gt=0)
    head_dim: int | None = Field(default=None, gt=0)
    vocab_size: Count | None = None
    tokens_per_step: Count | None = None
    warmup_steps: int | None = Field(default=None, ge=0)


def sizes_file(recipe_file: Path) -> Path:
    """recipes/<name>/train.yaml → recipes/sizes.yaml."""
    return recipe_file.absolute().parent.parent / "sizes.yaml"


def load_size(file: Path, recipe: str, name: str) -> Size:
    """The size `name` of a recipe, or the shared one. Raises RecipeError naming the sizes there are."""
    entries = read_yaml(file)
    for group in (recipe, SHARED):
        content = entries.get(group) or {}
        if name in content:
            return validate(Size, content[name], f"{file}: {group}.{name}")
    known = sorted({*(entries.get(recipe) or {}), *(entries.get(SHARED) or {})})
    raise RecipeError(
        f"{file}: no size {name!r} for recipe {recipe!r}; it has {', '.join(known) or 'none'}. Choose one of them with --size"
    )


def shape_of(recipe: TrainRecipe, size: Size, vocab_size: int) -> Shape:
    """The decoder of a recipe at a size. Raises RecipeError if heads do not divide what they must."""
    if size.head_dim is None and size.width % size.heads:
        raise RecipeError(f"size of {recipe.name}: width {size.width} does not divide into {size.heads} heads; set head_dim")
    kv_heads = size.kv_heads or size.heads
    if size.heads % kv_heads:
        raise RecipeError(f"size of {recipe.name}: {size.heads} heads do not divide into groups of {kv_heads} kv_heads")
    return Shape(
        layers=size.layers,
        width=size.width,
        heads=size.heads,
        kv_heads=kv_heads,
        head_dim=size.head_dim or size.width // size.heads,
        filter=size.filter,
        vocab_size=vocab_size,
        architecture=recipe.architecture,
    )


def at_size(recipe: TrainRecipe, size: Size) -> tuple[TrainRecipe, list[str]]:
    """The recipe with the pace of a size, and a note on everything that the size changed."""
    notes: list[str] = []
    phases = {name: _paced(name, phase, size, notes) for name, phase in recipe.phases.items()}
    return recipe.model_copy(update={"phases": phases}), notes


def _paced(name: str, phase: PhaseRecipe, size: Size, notes: list[str]) -> PhaseRecipe:
    changes: dict[str, object] = {}
    if size.tokens_per_step is not None and size.tokens_per_step != phase.tokens_per_step:
        notes.append(f"{name}: {size.tokens_per_step:,} tokens per step (the recipe has {phase.tokens_per_step:,})")
        changes["tokens_per_step"] = size.tokens_per_step
    warmup = phase.schedule.warmup_steps
    if size.warmup_steps is not None and warmup is not None and size.warmup_steps < warmup:
        notes.append(f"{name}: {size.warmup_steps} steps of warm-up (the recipe has {warmup})")
        changes["schedule"] = phase.schedule.model_copy(update={"warmup_steps": size.warmup_steps})
    return validate(PhaseRecipe, {**phase.model_dump(by_alias=True), **_dumped(changes)}, f"size of phase {name}")


def _dumped(changes: dict[str, object]) -> dict[str, object]:
    return {key: value.model_dump(by_alias=True) if isinstance(value, Model) else value for key, value in changes.items()}
