"""sizes.yaml: how big. `sizes[recipe or "shared"][name]` → the dimensions of the decoder and the pace that fits them.

    btlm:
      full: {layers: 32, width: 2560, heads: 32, filter: 6826, vocab_size: 50257}
      tiny: {layers: 4, …, tokens_per_step: 16384, warmup_steps: 10}

The file lies beside the recipe, or beside its directory. A size may lower a recipe's tokens per step and warm-up: a
batch of millions of tokens is not to be had on a laptop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from manifest.errors import RecipeError
from manifest.fields import validate
from manifest.record import Model
from manifest.store import LocalStore
from trainer.model.shape import VOCABULARY_MULTIPLE, Shape
from trainer.reading import read_yaml
from trainer.recipe import Count, PhaseRecipe, TrainRecipe, load_recipe

if TYPE_CHECKING:  # torch, which plans do without
    from trainer.adapt.base import Base

SIZES = "sizes.yaml"
SHARED = "shared"
BASE = "base"
"""The name of the size of a run whose recipe names none: it is its base's."""


class Published(Model):
    """What the authors of the original state of it; `trainer plan` prints both."""

    parameters: Count | None = None
    tokens: Count | None = None


class Size(Model):
    """An entry. kv_heads and head_dim default to heads and width / heads; vocab_size is for plans without mixture."""

    layers: int = Field(gt=0)
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    filter: int = Field(gt=0)
    kv_heads: int | None = Field(default=None, gt=0)
    head_dim: int | None = Field(default=None, gt=0)
    vocab_size: Count | None = None
    tokens_per_step: Count | None = None
    warmup_steps: int | None = Field(default=None, ge=0)
    published: Published | None = None


def sizes_file(recipe_file: Path) -> Path | None:
    """The sizes.yaml beside a recipe, or beside its directory; None if there is none."""
    beside = recipe_file.absolute().parent
    return next((file for place in (beside, beside.parent) if (file := place / SIZES).is_file()), None)


def load_size(file: Path, recipe: str, name: str) -> Size:
    """The size `name` of a recipe, or the shared one. Raises RecipeError naming the sizes there are."""
    return find_size(read_yaml(file), recipe, name, where=str(file))


def find_size(sizes: Mapping[str, Any], recipe: str, name: str, *, where: str) -> Size:
    """An entry of what a sizes.yaml holds. Raises RecipeError naming the sizes there are."""
    for group in (recipe, SHARED):
        content = sizes.get(group) or {}
        if not isinstance(content, dict):
            raise RecipeError(f"{where}: {group} is a {type(content).__name__}; expected sizes by name")
        if name in content:
            return validate(Size, content[name], f"{where}: {group}.{name}")
    known = sorted({*(sizes.get(recipe) or {}), *(sizes.get(SHARED) or {})})
    raise RecipeError(
        f"{where}: no size {name!r} for recipe {recipe!r}; it has {', '.join(known) or 'none'}. Choose one with --size"
    )


def shape_of(recipe: TrainRecipe, size: Size, vocab_size: int) -> Shape:
    """The decoder of a recipe at a size. Raises RecipeError if heads do not divide what they must, or positions end."""
    assert recipe.architecture is not None, "resolved"
    limit = recipe.architecture.max_positions
    for name, phase in recipe.phases.items():
        if limit is not None and phase.seq_len > limit:
            raise RecipeError(
                f"{recipe.name}: phase {name!r} has seq_len {phase.seq_len}, and the decoder learns max_positions "
                f"{limit}; raise max_positions, or shorten seq_len"
            )
    if size.head_dim is None and size.width % size.heads:
        raise RecipeError(
            f"size of {recipe.name}: width {size.width} does not divide into {size.heads} heads; set head_dim"
        )
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
        vocab_multiple=VOCABULARY_MULTIPLE if recipe.vocabulary is None else recipe.vocabulary.pad_to,
    )


@dataclass(frozen=True)
class Resolved:
    """A recipe at a size: its phases have the size's pace. notes: what the size changed; where: what errors name.

    base: what it starts from, which says what the recipe leaves out.
    """

    recipe: TrainRecipe
    name: str
    size: Size
    notes: tuple[str, ...]
    where: str
    base: Base | None = None

    def vocab(self, of_mixture: int | None) -> int:
        """The vocabulary of a run over a mixture (None: as stated): no row of the base is lost. Raises RecipeError."""
        own = 0 if self.base is None else self.base.shape.vocab_size
        return max(own, self.stated_vocab() if of_mixture is None else of_mixture)

    def stated_vocab(self) -> int:
        """The vocabulary that the size states, or the base has. Raises RecipeError if neither does."""
        if self.size.vocab_size is None and self.base is not None:
            return self.base.shape.vocab_size
        if self.size.vocab_size is None:
            raise RecipeError(
                f"size {self.name!r} of {self.recipe.name} states no vocab_size; give --mixture, which has one"
            )
        return self.size.vocab_size


def resolve(
    recipe_file: Path, size: str | None, *, base: str | None = None, store: LocalStore | None = None
) -> Resolved:
    """The recipe in a file at a size (None: the one it names), from the sizes.yaml near it.

    base: a model to start from, in place of the recipe's. store: the run's, which may know it. Raises RecipeError, and
    InputError as `open_base` does.
    """
    recipe = load_recipe(recipe_file)
    if base is not None:
        recipe = recipe.model_copy(update={"start_from": base})

    def find(name: str) -> Size:
        file = sizes_file(recipe_file)
        if file is None:
            raise RecipeError(
                f"{recipe_file}: size {name!r} is looked up in a {SIZES} beside the recipe or beside its directory, "
                "and there is none"
            )
        return load_size(file, recipe.name, name)

    return _resolved(recipe, size, find, str(recipe_file), store)


def resolve_recipe(
    recipe: TrainRecipe, sizes: Mapping[str, Any], size: str | None, *, store: LocalStore | None = None
) -> Resolved:
    """A recipe at a size (None: the one it names), from what a sizes.yaml holds. Raises as `resolve`."""
    return _resolved(recipe, size, lambda name: find_size(sizes, recipe.name, name, where="sizes"), "recipe", store)


def _resolved(
    recipe: TrainRecipe, size: str | None, find: Callable[[str], Size], where: str, store: LocalStore | None
) -> Resolved:
    name = size or recipe.size
    if recipe.start_from is not None:
        return _from_base(recipe, name, None if name is None else find(name), where, store)
    lacking = [key for key, given in (("architecture", recipe.architecture), ("size", name)) if given is None]
    if lacking or name is None:
        raise RecipeError(
            f"{where}: {' and '.join(lacking)} missing; give them, or a model that has them (start_from, or --base)"
        )
    return _at_size(recipe, name, find(name), where)


def _from_base(
    recipe: TrainRecipe, name: str | None, size: Size | None, where: str, store: LocalStore | None
) -> Resolved:
    from trainer.adapt.agree import architecture_of, size_of
    from trainer.adapt.base import open_base

    assert recipe.start_from is not None
    base = open_base(recipe.start_from, store)
    recipe = recipe.model_copy(update={"architecture": architecture_of(recipe.architecture, base, where)})
    return _at_size(recipe, name or BASE, size_of(name, size, base, where), where, base)


def _at_size(recipe: TrainRecipe, name: str, size: Size, where: str, base: Base | None = None) -> Resolved:
    notes: list[str] = []
    phases = {phase: _paced(phase, learned, size, notes) for phase, learned in recipe.phases.items()}
    return Resolved(recipe.model_copy(update={"phases": phases}), name, size, tuple(notes), where, base)


def _paced(name: str, phase: PhaseRecipe, size: Size, notes: list[str]) -> PhaseRecipe:
    """A phase with the pace of a size. A pace of its own takes other steps than the original run's."""
    fields = phase.model_dump(by_alias=True)
    if size.tokens_per_step is not None and size.tokens_per_step != phase.tokens_per_step:
        notes.append(f"{name}: {size.tokens_per_step:,} tokens per step (the recipe has {phase.tokens_per_step:,})")
        fields |= {"tokens_per_step": size.tokens_per_step, "reference_steps": None}
    for key, what, schedule in (
        ("schedule", "warm-up", phase.schedule),
        ("weight_decay", "the weight decay's warm-up", phase.weight_decay),
    ):
        warmup = None if schedule is None else schedule.warmup_steps
        if size.warmup_steps is not None and warmup is not None and size.warmup_steps < warmup:
            notes.append(f"{name}: {size.warmup_steps} steps of {what} (the recipe has {warmup})")
            fields[key] |= {"warmup_steps": size.warmup_steps}
    return validate(PhaseRecipe, fields, f"phase {name} at this size")
