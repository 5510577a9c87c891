"""A train recipe: *what* is learned and how. Flags say where and how big.

    name, architecture, size, optimizer, engine, save
    phases: one per phase of the mixture, same names, same order

An unknown key is an error, and so is a value that this version does not support; nothing is ignored in silence.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from manifest import fields
from manifest.record import Model
from trainer.model.shape import Architecture
from trainer.reading import read_yaml

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

    micro_batch_tokens: tokens that a worker takes through the model at once.
    """

    zero: Annotated[Literal[0, 1], _only(0, 1)] = 1
    precision: Annotated[Literal["fp32"], _only("fp32")] = "fp32"
    activation_checkpointing: bool = False
    micro_batch_tokens: Count = 8192


class SaveRecipe(Model):
    """When checkpoints are published, besides step 0, the end of each phase and the end.

    every_tokens: None is a tenth of the run, at most 1B. keep_full: how many keep the optimiser's state, so that
    training can go on from them. publish: what becomes of older ones: `all` keeps their weights, `recent` removes them.
    """

    every_tokens: Count | None = None
    keep_full: int = Field(default=2, ge=1)
    publish: Literal["all", "recent"] = "all"


class ScheduleRecipe(Model):
    """The learning rate over the steps of a phase or of the run, or `continue: PHASE`: that phase's, on and on."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    continues: str | None = Field(default=None, alias="continue")
    shape: Annotated[Literal["linear", "cosine", "constant"], _only("linear", "cosine", "constant")] | None = None
    warmup_steps: int | None = Field(default=None, ge=0)
    peak: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    end: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    span: Literal["phase", "run"] | None = None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        own = {name: getattr(self, name) for name in ("shape", "warmup_steps", "peak", "end", "span")}
        if self.continues is not None:
            extra = [name for name, value in own.items() if value is not None]
            if extra:
                raise ValueError(
                    f"`continue` takes the whole schedule of {self.continues!r}; remove {', '.join(extra)}"
                )
            return self
        needed = ["shape", "peak"] + (["end"] if self.shape != "constant" else [])
        missing = [name for name in needed if own[name] is None]
        if missing:
            raise ValueError(f"needs {', '.join(missing)}, or `continue: PHASE`")
        if self.shape == "constant" and self.end is not None:
            raise ValueError("a constant schedule ends where it is; remove end")
        return self


class PhaseRecipe(Model):
    """How one phase is learned.

    loss_on: `answer` is what the streams' masks mark, where they have one. packing: `concat` is documents end to end,
    each seeing those before it; in `documents` attention stays within each of them, and its first token is no target.
    reference_steps: steps of the original run, for `trainer plan` without a mixture.
    """

    seq_len: Annotated[Count, Field(ge=2)]
    tokens_per_step: Count
    schedule: ScheduleRecipe
    trainable: Annotated[Literal["all"], _only("all")] = "all"
    loss_on: Annotated[Literal["all", "answer"], _only("all", "answer")] = "all"
    packing: Annotated[Literal["concat", "documents"], _only("concat", "documents")] = "concat"
    optimizer: Literal["keep", "reset"] = "keep"
    reference_steps: Count | None = None

    @model_validator(mode="after")
    def _whole_windows(self) -> Self:
        if self.tokens_per_step % self.seq_len:
            raise ValueError(
                f"tokens_per_step {self.tokens_per_step} is not a multiple of seq_len {self.seq_len}; "
                f"{self.tokens_per_step // self.seq_len * self.seq_len or self.seq_len} is"
            )
        return self


class TrainRecipe(Model):
    """A train recipe."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    architecture: Architecture
    size: str
    start_from: Annotated[None, _only(None)] = None
    vocabulary: Annotated[None, _only(None)] = None
    optimizer: OptimizerRecipe = OptimizerRecipe()
    engine: EngineRecipe = EngineRecipe()
    save: SaveRecipe = SaveRecipe()
    phases: dict[str, PhaseRecipe] = Field(min_length=1)

    @model_validator(mode="after")
    def _continues_an_earlier_phase(self) -> Self:
        earlier: list[str] = []
        for name, phase in self.phases.items():
            wanted = phase.schedule.continues
            if wanted is not None and wanted not in earlier:
                raise ValueError(
                    f"phase {name!r} continues the schedule of {wanted!r}, which is not an earlier phase"
                    f" ({', '.join(earlier) or 'there is none'})"
                )
            earlier.append(name)
        return self

    def identified(self) -> dict[str, Any]:
        """What of the recipe makes a run that run: everything but how it is carried out and when it is saved."""
        carried_out = {"zero", "activation_checkpointing", "micro_batch_tokens"}
        planned = {"__all__": {"reference_steps"}}
        return self.model_dump(mode="json", exclude={"engine": carried_out, "save": True, "phases": planned})


def load_recipe(path: Path) -> TrainRecipe:
    """The recipe in a file. Raises RecipeError with a line per problem."""
    return fields.validate(TrainRecipe, read_yaml(path), str(path))
