"""A recipe in small: the same architecture, optimizer and shape of the schedules at another width, for a short while.

Heads stay as many and grow with the width, the filter keeps its proportion to the base's, windows are cut to `seq_len`,
and every rate of the schedules is multiplied by one factor. So two proxies differ in what is compared and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from manifest.errors import RecipeError
from manifest.mixture import Mixture
from manifest.record import Reference
from trainer.model.shape import Architecture, Shape
from trainer.recipe import PhaseRecipe, TrainRecipe
from trainer.recipe_schedule import ScheduleRecipe
from trainer.trial import Trial

WARMUP_SHARE = 0.1
"""Of the steps, at most: a few dozen steps have no room for a warm-up that is planned for a hundred thousand."""


@dataclass(frozen=True)
class Pace:
    """How long a proxy learns, and how deep it is. tokens: in all; seq_len: of a window, at most."""

    tokens: int = 100_000
    tokens_per_step: int = 2048
    seq_len: int = 256
    layers: int = 2
    heads: int = 4

    @property
    def steps(self) -> int:
        """About."""
        return max(1, self.tokens // self.tokens_per_step)


def mup_architecture(recipe: TrainRecipe) -> Architecture:
    """The architecture of a recipe with muP. Raises RecipeError if it has none."""
    kind = recipe.architecture
    if kind is None or kind.mup is None:
        raise RecipeError(
            f"{recipe.name}: architecture.mup is missing, so there is nothing to check; say its constants"
        )
    return kind


def at_width(architecture: Architecture, width: int, *, layers: int, heads: int, vocab_size: int, mup: bool) -> Shape:
    """The decoder of an architecture with muP at a width, or, without `mup`, in the standard parametrisation.

    Raises RecipeError if the width does not divide into heads.
    """
    constants = architecture.mup
    assert constants is not None, "mup_architecture sees to it"
    if width % (2 * heads):
        raise RecipeError(f"width {width}: {heads} heads need a multiple of {2 * heads}")
    return Shape(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        filter=round(width * constants.base_filter / constants.base_width),
        vocab_size=vocab_size,
        architecture=architecture if mup else architecture.model_copy(update={"mup": None}),
    )


def peak_of(recipe: TrainRecipe) -> float:
    """The peak of the first schedule of a recipe."""
    schedule = next(iter(recipe.phases.values())).schedule
    if schedule.peak is not None:
        return schedule.peak
    return max(knot.value for knot in schedule.knots or ())


@dataclass(frozen=True)
class Proxies:
    """Makes the trials of one recipe over one mixture."""

    recipe: TrainRecipe
    mixture: Mixture
    reference: Reference
    pace: Pace

    def trial(
        self, width: int, rate: float, *, seed: int, mup: bool = True, constants: Mapping[str, float] | None = None
    ) -> Trial:
        """The recipe at a width with its first peak at `rate`, and muP's constants replaced by those that are given."""
        architecture = mup_architecture(self.recipe)
        assert architecture.mup is not None
        if constants:
            tuned = architecture.mup.model_copy(update=dict(constants))
            architecture = architecture.model_copy(update={"mup": tuned})
        shape = at_width(
            architecture,
            width,
            layers=self.pace.layers,
            heads=self.pace.heads,
            vocab_size=self.mixture.tokenizer.vocab_size,
            mup=mup,
        )
        factor = rate / peak_of(self.recipe)
        phases = {name: self._phase(phase, factor) for name, phase in self.recipe.phases.items()}
        recipe = self.recipe.model_copy(update={"architecture": shape.architecture, "phases": phases})
        return Trial(recipe=recipe, shape=shape, mixture=self.reference, seed=seed, tokens=self.pace.tokens)

    def _phase(self, phase: PhaseRecipe, factor: float) -> PhaseRecipe:
        seq_len = min(phase.seq_len, self.pace.seq_len)
        if self.pace.tokens_per_step % seq_len:
            raise RecipeError(
                f"--tokens-per-step {self.pace.tokens_per_step} is not a multiple of the windows' {seq_len} tokens"
            )
        changes = {"seq_len": seq_len, "tokens_per_step": self.pace.tokens_per_step, "reference_steps": None}
        return phase.model_copy(update={**changes, "schedule": self._schedule(phase.schedule, factor)})

    def _schedule(self, schedule: ScheduleRecipe, factor: float) -> ScheduleRecipe:
        if schedule.continues is not None:
            return schedule
        rates = {name: getattr(schedule, name) for name in ("peak", "end", "start")}
        changes: dict[str, Any] = {name: rate * factor for name, rate in rates.items() if rate is not None}
        if schedule.knots is not None:
            changes["knots"] = tuple(knot.model_copy(update={"value": knot.value * factor}) for knot in schedule.knots)
        most = max(1, round(WARMUP_SHARE * self.pace.steps))
        if schedule.warmup_steps is not None:
            changes["warmup_steps"] = min(schedule.warmup_steps, most)
        return schedule.model_copy(update=changes)
