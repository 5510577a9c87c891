"""A train recipe: *what* is learned and how. Flags say where and how big.

    name, architecture, size, optimizer, engine, save, spikes
    start_from, vocabulary: a model that is there already, which says what the decoder is (or `trainer fit --base`)
    phases: one per phase of the mixture, same names, same order

An unknown key is an error, and so is a value that this version does not support; nothing is ignored in silence.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from manifest import fields
from manifest.record import Model
from trainer.adapt.settings import VocabularyRecipe
from trainer.model.shape import Architecture
from trainer.reading import read_yaml
from trainer.recipe_save import PhaseSave
from trainer.recipe_save import SaveRecipe as SaveRecipe
from trainer.recipe_schedule import ScheduleRecipe as ScheduleRecipe
from trainer.recipe_schedule import WeightDecay
from trainer.spikes import SpikesRecipe
from trainer.trainable import ALL, Trainable

Count = Annotated[fields.Count, Field(gt=0)]
"""A positive whole number, also as 200k, 4M, 345B."""

Beta = Annotated[float, Field(ge=0, lt=1)]


def _only(*values: object) -> BeforeValidator:
    """Accepts these values; says of any other that this version does not support it."""

    def check(value: object) -> object:
        if value in values:
            return value
        raise ValueError(f"this version supports only {' or '.join(repr(v) for v in values)}")

    return BeforeValidator(check)


class OptimizerRecipe(Model):
    """AdamW. Decay acts on matrices and embeddings, and is multiplied by each group's learning rate."""

    name: Annotated[Literal["adamw"], _only("adamw")] = "adamw"
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0, allow_inf_nan=False)
    weight_decay: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    clip: float = Field(default=1.0, gt=0, allow_inf_nan=False)


class EngineRecipe(Model):
    """How the same arithmetic is carried out; apart from `precision` it changes a run to rounding only.

    zero: how much is shared out among the workers: 0 nothing, 1 the optimiser, 2 gradients too, 3 weights too.
    precision: `bf16` computes in 16 bits; what the optimiser steps on, and checkpoints hold, stays fp32. `auto` is bf16
    on a GPU that has it, and fp32 elsewhere.
    offload: `optimizer` keeps AdamW's moments and master weights, and takes its steps, in the host's memory.
    attention: `flex` computes ALiBi and documents inside the kernel, for GPUs; `sdpa` adds them as a bias.
    micro_batch_tokens: tokens that a worker takes through the model at once.
    """

    zero: Literal[0, 1, 2, 3] = 1
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    offload: Literal["none", "optimizer"] = "none"
    activation_checkpointing: bool = False
    attention: Literal["sdpa", "flex"] = "sdpa"
    micro_batch_tokens: Count = 8192

    @model_validator(mode="after")
    def _can_be_carried_out(self) -> Self:
        if self.zero == 0 and self.offload != "none":
            raise ValueError("offload: found 'optimizer' with zero 0, which divides nothing; use zero 1, 2 or 3")
        if self.zero == 0 and self.precision == "bf16":
            raise ValueError(
                "precision: found bf16 with zero 0, which keeps one copy of the weights; use zero 1, 2 or 3"
            )
        return self


class PhaseRecipe(Model):
    """How one phase is learned.

    loss_on: `answer` is what the streams' masks mark, where they have one; long_answers: what of one that is longer
    than a window, which can only be learned in pieces. packing: `concat` is documents end to end, each seeing those
    before it; in `documents` attention stays within each of them, and its first token is no target; `best_fit` is
    `documents` that no window cuts unless they are longer than it: what is left of windows is padding.
    trainable: see trainable.py. reference_steps: steps of the original run, for `trainer plan` without a mixture.
    weight_decay: a number or a schedule, in place of the optimizer's. save: when checkpoints come in this phase, from
    its first step on, in place of the run's pace.
    """

    seq_len: Annotated[Count, Field(ge=2)]
    tokens_per_step: Count
    schedule: ScheduleRecipe
    trainable: Trainable = ALL
    loss_on: Annotated[Literal["all", "answer"], _only("all", "answer")] = "all"
    long_answers: Literal["refuse", "cut"] = "refuse"
    packing: Annotated[Literal["concat", "documents", "best_fit"], _only("concat", "documents", "best_fit")] = "concat"
    optimizer: Literal["keep", "reset"] = "keep"
    reference_steps: Count | None = None
    weight_decay: WeightDecay | None = Field(default=None, exclude_if=lambda value: value is None)
    save: PhaseSave | None = Field(default=None, exclude_if=lambda value: value is None)

    @model_validator(mode="after")
    def _whole_windows(self) -> Self:
        if self.tokens_per_step % self.seq_len:
            raise ValueError(
                f"tokens_per_step {self.tokens_per_step} is not a multiple of seq_len {self.seq_len}; "
                f"{self.tokens_per_step // self.seq_len * self.seq_len or self.seq_len} is"
            )
        return self


def _require_phases(who: str, what: str, schedule: ScheduleRecipe, earlier: list[str], later: list[str]) -> None:
    """Raises ValueError if a schedule continues none of the earlier phases, or goes through none of the later."""
    if schedule.continues is not None and schedule.continues not in earlier:
        raise ValueError(
            f"{who} continues the {what} of {schedule.continues!r}, which is not an earlier phase"
            f"{'' if what == 'schedule' else f' with a {what} of its own'} ({', '.join(earlier) or 'there is none'})"
        )
    if schedule.through is not None and schedule.through not in later:
        raise ValueError(
            f"{who} has a {what} through {schedule.through!r}, which is neither that phase nor a later one "
            f"({', '.join(later)})"
        )


class TrainRecipe(Model):
    """A train recipe.

    start_from: a checkpoint, or a Hugging Face directory, whose weights the run begins with. With one, `architecture`
    and `size` may be left out, and agree with it where they are given. vocabulary: how its embeddings grow.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    architecture: Architecture | None = None
    size: str | None = None
    start_from: Annotated[str, Field(min_length=1)] | None = None
    vocabulary: VocabularyRecipe | None = None
    optimizer: OptimizerRecipe = OptimizerRecipe()
    engine: EngineRecipe = EngineRecipe()
    save: SaveRecipe = SaveRecipe()
    spikes: SpikesRecipe = SpikesRecipe()
    phases: dict[str, PhaseRecipe] = Field(min_length=1)

    @model_validator(mode="after")
    def _schedules_name_phases(self) -> Self:
        names = list(self.phases)
        for index, (name, phase) in enumerate(self.phases.items()):
            _require_phases(f"phase {name!r}", "schedule", phase.schedule, names[:index], names[index:])
            if phase.weight_decay is not None:
                scheduled = [earlier for earlier in names[:index] if self.phases[earlier].weight_decay is not None]
                _require_phases(f"phase {name!r}", "weight_decay", phase.weight_decay, scheduled, names[index:])
        return self

    @model_validator(mode="after")
    def _resets_where_it_trains_others(self) -> Self:
        for (_, before), (name, phase) in pairwise(self.phases.items()):
            if phase.trainable != before.trainable and phase.optimizer != "reset":
                raise ValueError(
                    f"phase {name!r} trains {phase.trainable}, the one before {before.trainable}: an optimizer cannot "
                    "be kept for other parameters; set `optimizer: reset`"
                )
        return self

    @model_validator(mode="after")
    def _counts_checkpoints_once(self) -> Self:
        paced = [name for name, phase in self.phases.items() if phase.save is not None]
        if paced and self.save.count is not None:
            raise ValueError(
                f"save.count is how many checkpoints there are in all, and phase {paced[0]!r} has a `save` of its own; "
                "give each phase its own, or the run every_tokens or every_steps"
            )
        return self

    @property
    def schedules_weight_decay(self) -> bool:
        """Whether a phase has a weight decay of its own."""
        return any(phase.weight_decay is not None for phase in self.phases.values())

    @property
    def trainables(self) -> dict[str, Trainable]:
        """What each phase trains."""
        return {name: phase.trainable for name, phase in self.phases.items()}

    @property
    def models(self) -> dict[str, str]:
        """Where models lie that the recipe names: `start_from`, and `vocabulary`'s other one."""
        other = None if self.vocabulary is None else self.vocabulary.other_model
        return {name: place for name, place in (("start_from", self.start_from), ("vocabulary", other)) if place}

    def with_models(self, places: Mapping[str, str]) -> TrainRecipe:
        """The same, with models at other places. places: as `models` has them."""
        vocabulary = self.vocabulary
        if vocabulary is not None and "vocabulary" in places:
            vocabulary = vocabulary.with_other_model(places["vocabulary"])
        update = {"start_from": places.get("start_from", self.start_from), "vocabulary": vocabulary}
        return self.model_copy(update=update)

    def identified(self) -> dict[str, Any]:
        """What of the recipe makes a run that run: all but how it is carried out, when it is saved, and where other
        models lie: what is in these is part of the run's identity.
        """
        carried_out = {"zero", "offload", "activation_checkpointing", "attention", "micro_batch_tokens"}
        planned = {"__all__": {"reference_steps", "long_answers", "save"}}
        fields = self.model_dump(
            mode="json", exclude={"engine": carried_out, "save": True, "spikes": True, "phases": planned}
        )
        grown = None if self.vocabulary is None else self.vocabulary.identified()
        passed_over = self.spikes.identified()
        spikes = {} if passed_over is None else {"spikes": passed_over}
        return fields | {"start_from": None, "vocabulary": grown} | spikes


def load_recipe(path: Path) -> TrainRecipe:
    """The recipe in a file. Raises RecipeError with a line per problem."""
    return fields.validate(TrainRecipe, read_yaml(path), str(path))
