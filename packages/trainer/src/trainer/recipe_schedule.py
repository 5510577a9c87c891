"""The schedule of a phase in a recipe: the learning rate, or the weight decay, over the steps that it spans.

    {shape: linear,    warmup_steps: 95, peak: 0.012, end: 1.0e-4, span: run}         also cosine
    {shape: wsd,       warmup_steps: 95, peak: 0.012, end: 0, decay_share: 0.2, decay_shape: 1-sqrt}
    {shape: constant,  peak: 0.012}
    {shape: piecewise, knots: [{share: 0, value: 0.01}, {share: 0.5, value: 0.002}], between: linear}
    {continue: PHASE}                                                                  that phase's, on and on

What is None is left out of identities, so runs of before these fields keep theirs.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from manifest.record import Model

ScheduleShape = Literal["linear", "cosine", "wsd", "constant", "piecewise"]
DecayShape = Literal["linear", "cosine", "1-sqrt"]
Between = Literal["linear", "hold"]

_NEEDS: dict[str, tuple[str, ...]] = {
    "linear": ("peak", "end"),
    "cosine": ("peak", "end"),
    "wsd": ("peak", "end"),
    "constant": ("peak",),
    "piecewise": ("knots",),
}
_TAKES: dict[str, tuple[str, ...]] = {"wsd": ("decay_share", "decay_steps", "decay_shape"), "piecewise": ("between",)}
_EVERY = ("shape", "start", "warmup_steps", "span", "through")


def _is_none(value: object) -> bool:
    return value is None


class Knot(Model):
    """A value at a place of the span: after `step` steps of it, or after a `share` of them."""

    step: int | None = Field(default=None, ge=0, exclude_if=_is_none)
    share: float | None = Field(default=None, ge=0, le=1, exclude_if=_is_none)
    value: float = Field(ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.step is None) == (self.share is None):
            raise ValueError("a knot needs either step or share")
        return self

    @property
    def place(self) -> float:
        """step or share, whichever it has."""
        place = self.share if self.step is None else self.step
        assert place is not None
        return place


class ScheduleRecipe(Model):
    """The learning rate over the steps of a phase, of the run, or of this phase to another.

    start: what warm-up rises (or falls) from; 0 if it is left out. span: the phase (the default), or from it to the end
    of the run; through: from it to the end of that later phase. decay_share, decay_steps: how long `wsd` decays at the
    end of its span, in the shape decay_shape (linear if it is left out). between: from knot to knot a line (if it is
    left out), or each value held until the next.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    continues: str | None = Field(default=None, alias="continue")
    shape: ScheduleShape | None = None
    warmup_steps: int | None = Field(default=None, ge=0)
    peak: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    end: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    span: Literal["phase", "run"] | None = None
    start: float | None = Field(default=None, ge=0, allow_inf_nan=False, exclude_if=_is_none)
    through: str | None = Field(default=None, exclude_if=_is_none)
    decay_share: float | None = Field(default=None, gt=0, le=1, exclude_if=_is_none)
    decay_steps: int | None = Field(default=None, gt=0, exclude_if=_is_none)
    decay_shape: DecayShape | None = Field(default=None, exclude_if=_is_none)
    knots: tuple[Knot, ...] | None = Field(default=None, min_length=1, exclude_if=_is_none)
    between: Between | None = Field(default=None, exclude_if=_is_none)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = {name for name in type(self).model_fields if getattr(self, name) is not None} - {"continues"}
        if self.continues is not None:
            if given:
                raise ValueError(
                    f"`continue` takes the whole schedule of {self.continues!r}; remove {self._in_order(given)}"
                )
            return self
        if self.shape is None:
            raise ValueError(f"needs {', '.join(('shape', *self._missing('linear')))}, or `continue: PHASE`")
        missing = self._missing(self.shape)
        if missing:
            raise ValueError(f"needs {', '.join(missing)}, or `continue: PHASE`")
        self._refuse(given - {*_EVERY, *_NEEDS[self.shape], *_TAKES.get(self.shape, ())})
        self._require_parts()
        return self

    def _missing(self, shape: str) -> list[str]:
        return [name for name in _NEEDS[shape] if getattr(self, name) is None]

    def _in_order(self, names: set[str]) -> str:
        return ", ".join(name for name in type(self).model_fields if name in names)

    def _refuse(self, extra: set[str]) -> None:
        if self.shape == "constant" and extra == {"end"}:
            raise ValueError("a constant schedule ends where it is; remove end")
        if extra:
            raise ValueError(f"a schedule of shape {self.shape} has no {self._in_order(extra)}; remove what is extra")

    def _require_parts(self) -> None:
        if self.span is not None and self.through is not None:
            raise ValueError("give span or through, not both")
        if self.start is not None and not self.warmup_steps:
            raise ValueError(f"start {self.start} is where warm-up starts from; give warmup_steps too")
        if self.shape == "wsd" and (self.decay_share is None) == (self.decay_steps is None):
            raise ValueError("shape wsd needs either decay_share or decay_steps")
        knots = self.knots or ()
        if len({knot.step is None for knot in knots}) > 1:
            raise ValueError("give all knots by step, or all by share")
        if any(one.place > other.place for one, other in pairwise(knots)):
            raise ValueError("the knots are not in order; sort them by step or share")


class WeightDecayRecipe(ScheduleRecipe):
    """The weight decay over the steps, likewise; 0 is one. A plain number is a constant."""

    peak: float | None = Field(default=None, ge=0, allow_inf_nan=False)


def _constant(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"shape": "constant", "peak": value} if is_number else value


WeightDecay = Annotated[WeightDecayRecipe, BeforeValidator(_constant)]
"""A weight decay in a recipe: a number or a schedule."""
