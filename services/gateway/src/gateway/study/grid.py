"""A study's YAML → its arms. An arm is a data and a train recipe with some fields set, and a seed.

name: bilingual_ratio_rate
data: data_small.yaml              # relative to the study's file
train: train.yaml
eval: eval.yaml
size: small                        # optional, as are tokens and set
tokens: 3900k
set: {train.phases.all.seq_len: 512}                       # fields that every arm has
seeds: [0, 1, 2]
rate: peak                         # the axis that plots have along the bottom; the best of it is marked
best_by: docs                      # the source that says which rate is best (default: all of them)
baseline: true                     # the model that arms start from is scored too, and told apart
axes:
  peak:  {field: train.phases.all.schedule.peak, values: [1.0e-4, 3.0e-4]}
  ratio: {choices: {"1:1": {data.phases.all.weights: {english: 0.5, arabic: 0.5}}, "3:1": {…}}}
"""

from __future__ import annotations

import copy
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from dataproc.recipe import DataRecipe
from evalkit.recipe import EvalRecipe
from gateway.commands.submit import read_data_recipe, read_recipe, read_sizes
from manifest.errors import InputError, RecipeError
from manifest.fields import Count, RecipeModel, nearest, validate
from trainer.recipe import TrainRecipe

MODELS: Mapping[str, type[BaseModel]] = {"data": DataRecipe, "train": TrainRecipe}
MOST_ARMS = 1000

Settings = dict[str, Any]
"""Dotted field, from `data.` or `train.` on → its value."""


class Axis(RecipeModel):
    """What is varied: a field, or several that go together, over values; or named choices of several fields each."""

    field: str | tuple[str, ...] = ()
    values: tuple[Any, ...] = ()
    choices: dict[str, Settings] = {}

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if bool(self.choices) == bool(self.field or self.values) or bool(self.field) != bool(self.values):
            raise ValueError("give 'field' and 'values', or 'choices: {name: {field: value}}'")
        if len(set(self.labelled())) < len(self.values):
            raise ValueError("a value stands twice; keep one")
        return self

    def labelled(self) -> dict[str, Settings]:
        """A name for each value → what it sets."""
        fields = (self.field,) if isinstance(self.field, str) else self.field
        return self.choices or {_label(value): dict.fromkeys(fields, value) for value in self.values}


def _label(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


class StudyRecipe(RecipeModel):
    """A study's YAML. tokens: of every arm; else as the mixture draws. rate: the name of an axis of numbers. best_by:
    the source by which the best of a line is chosen, in place of all. baseline: what arms start from (a run or a
    checkpoint of the service) is scored over what their mixture holds out.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=80)
    data: str
    train: str
    eval: str
    size: str | None = None
    tokens: Annotated[Count, Field(gt=0)] | None = None
    set: Settings = {}
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    rate: str | None = None
    best_by: str | None = None
    baseline: bool = False
    axes: dict[str, Axis] = Field(min_length=1)

    @field_validator("seeds")
    @classmethod
    def _each_once(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("a seed stands twice; keep one")
        return seeds

    @model_validator(mode="after")
    def _rate_is_an_axis_of_numbers(self) -> Self:
        if self.rate is None:
            return self
        if self.rate not in self.axes:
            raise ValueError(f"rate: there is no axis {self.rate!r}{nearest(self.rate, list(self.axes))}")
        values = self.axes[self.rate].values
        others = [value for value in values if isinstance(value, bool) or not isinstance(value, int | float)]
        if others or not values:
            found = repr(others[0]) if others else "choices"
            raise ValueError(
                f"rate: axis {self.rate!r} has {found}; expected values that are numbers (in YAML 1.0e-3 is one, and "
                "1e-3 a text)"
            )
        return self


@dataclass(frozen=True)
class Arm:
    """Recipes as a request has them. labels: axis → the name of its value."""

    labels: Mapping[str, str]
    seed: int
    data: Mapping[str, Any]
    train: Mapping[str, Any]

    @property
    def name(self) -> str:
        """ratio 1:1, peak 0.0003, seed 0."""
        return ", ".join(f"{axis} {label}" for axis, label in (*self.labels.items(), ("seed", str(self.seed))))


@dataclass(frozen=True)
class Study:
    """A study that can be carried out: its YAML, its arms, the eval recipe and the sizes that go with it."""

    recipe: StudyRecipe
    arms: tuple[Arm, ...]
    eval: Mapping[str, Any]
    sizes: Mapping[str, Any] | None

    @property
    def seeds(self) -> tuple[int, ...]:
        """Those of the arms, in their order."""
        return tuple(dict.fromkeys(arm.seed for arm in self.arms))

    def of_seeds(self, seeds: Collection[int]) -> Study:
        """The same with the arms of some seeds alone. Raises InputError for a seed that it has not."""
        unknown = sorted(set(seeds) - set(self.recipe.seeds))
        if unknown:
            known = ", ".join(map(str, self.recipe.seeds))
            raise InputError(f"study {self.recipe.name} has no seed {unknown[0]}; it has {known}")
        return replace(self, arms=tuple(arm for arm in self.arms if arm.seed in seeds))


def load_study(path: Path, more: Settings | None = None) -> Study:
    """The arms of a study in the order of its axes, seeds last. more: fields that every arm has, over those of `set`.

    Raises RecipeError: an unknown field (with the nearest), a recipe that some arm makes wrong.
    """
    recipe = validate(StudyRecipe, read_data_recipe(path), str(path))
    files = {part: path.parent / getattr(recipe, part) for part in (*MODELS, "eval")}
    read = {"data": read_data_recipe}
    recipes = {part: read.get(part, read_recipe)(file) for part, file in files.items()}
    validate(EvalRecipe, recipes["eval"], str(files["eval"]))
    base = _with(recipes, {**recipe.set, **(more or {})}, f"{path}: set")
    axes = {name: axis.labelled() for name, axis in recipe.axes.items()}
    count = len(recipe.seeds)
    for labelled in axes.values():
        count *= len(labelled)
    if count > MOST_ARMS:
        raise RecipeError(
            f"{path}: the grid has {count} arms, at most {MOST_ARMS} are done in one study; leave some out"
        )
    arms = [arm for labels in product(*axes.values()) for arm in _arms(path, recipe, base, axes, labels)]
    _require_different(path, arms)
    return Study(recipe, tuple(arms), recipes["eval"], read_sizes(None, files["train"]))


def _arms(
    path: Path, recipe: StudyRecipe, base: dict[str, Any], axes: dict[str, dict[str, Settings]], labels: tuple[str, ...]
) -> Iterable[Arm]:
    named = dict(zip(axes, labels, strict=True))
    recipes = base
    for axis, label in named.items():
        recipes = _with(recipes, axes[axis][label], f"{path}: axis {axis!r}")
    where = f"{path}: {', '.join(f'{axis} {label}' for axis, label in named.items())}"
    for part, model in MODELS.items():
        validate(model, recipes[part], f"{where}: {part}")
    if recipe.baseline and not recipes["train"].get("start_from"):
        raise RecipeError(
            f"{where}: baseline: the arm starts from no model; give --set train.start_from=runs/…, or leave it out"
        )
    for seed in recipe.seeds:
        yield Arm(named, seed, recipes["data"], recipes["train"])


def _with(recipes: Mapping[str, Any], settings: Settings, where: str) -> dict[str, Any]:
    """The recipes with fields set. Raises RecipeError for a field that a recipe cannot have."""
    made = {part: copy.deepcopy(content) for part, content in recipes.items()}
    for field, value in settings.items():
        part, *names = field.split(".")
        if part not in MODELS or not names:
            raise RecipeError(f"{where}: {field!r} is no field of a recipe; it begins with 'data.' or 'train.'")
        _require_field(MODELS[part], made[part], names, f"{where}: {field!r}")
        inside = made[part]
        for name in names[:-1]:
            inside = inside.setdefault(name, {})
        inside[names[-1]] = copy.deepcopy(value)
    return made


def _require_field(model: type[BaseModel], content: Any, names: list[str], where: str) -> None:
    """Raises RecipeError unless all names but the last are there, or the recipe's own; the model judges the last."""
    known = [field.alias or name for name, field in model.model_fields.items()]
    for depth, name in enumerate(names):
        if content is None:  # a field that is left out in the recipe: what it holds is the model's to judge
            return
        if not isinstance(content, dict):
            raise RecipeError(f"{where}: {'.'.join(names[:depth])!r} is {content!r}, which has no fields; set it whole")
        here = known if depth == 0 else list(content)
        if name not in here and (depth == 0 or depth < len(names) - 1):
            raise RecipeError(f"{where}: there is no field {name!r}{nearest(name, here)}")
        content = content.get(name)


def _require_different(path: Path, arms: list[Arm]) -> None:
    """Raises RecipeError if two arms are the same: an axis sets what a later one sets again."""
    seen: dict[str, Arm] = {}
    for arm in arms:
        same = seen.setdefault(json.dumps([arm.data, arm.train, arm.seed], sort_keys=True), arm)
        if same is not arm:
            raise RecipeError(
                f"{path}: two arms are the same: ({same.name}) and ({arm.name}); do two axes set one field?"
            )
