"""Steps whose loss, or gradient, is far above those before them: found, named, passed over where the recipe says so.

    spikes: {action: report | skip | rewind, window: 128, factor: 8, gradient_factor: 32}

A loss is a spike above  median + factor · max(1.4826 · MAD, 1 % of the median)  of the last `window` losses of the
phase on the same mixture. (MAD: the median of their distances from their median; 1.4826 of it is the standard deviation
of what is normally distributed.) The limit is a function of losses alone, which are the same on all workers and stand
in checkpoints: all workers agree, and a run that is resumed finds what one finds that was not. A spike's own loss
counts from the next step on: a loss that stays on another level is no spike once half of the window is of it.

The norm of the gradient, before it is clipped, has a limit of the same kind with `gradient_factor`. Norms are not
distributed normally: those of small runs that were fine are above 8 such deviations in 1 step of 100, and never above
32. Where the recipe does not give the factor, such a step is reported, whatever the action, and learned.

A run that goes back forgets the losses since its checkpoint, so it would take a lasting level for a spike for ever, and
pass over all that is left. So it goes back at most `rewinds` times in a row, each less than a window after what was
passed over last; the next spikes are learned and reported, until the window has the new level.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Literal

from pydantic import Field

from manifest.record import Model

Skipped = tuple[tuple[int, int], ...]
"""Steps [first, stop) that a run passed over, in order and apart."""

NORMAL = 1.4826
"""The standard deviation of a normal distribution, in MADs."""

LEAST = 0.01
"""Of the median: what losses vary by at least, so that one that hardly varies has no spikes in its noise."""

Action = Literal["report", "skip", "rewind"]

GRADIENT_FACTOR = 32.0
"""For norms of the gradient, where the recipe has none."""

REWINDS = 3
"""In a row. Then it is neither chance nor the documents read: passing over more of them would not help."""


class SpikesRecipe(Model):
    """What is done about a step that is a spike.

    report: nothing but saying so. skip: its step is read and not learned: no weight, moment or counter changes.
    rewind: back to the newest checkpoint, and from there past the steps from `before` before the spike to `after` after
    it, within the phase, without learning them. window: losses that are compared with; a quarter of it must be there.
    rewinds: at most so many in a row. gradient_factor: of norms of the gradient; without it they are only reported.
    """

    action: Action = "report"
    window: int = Field(default=128, ge=8)
    factor: float = Field(default=8.0, gt=0, allow_inf_nan=False)
    gradient_factor: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, exclude_if=lambda value: value is None
    )
    before: int = Field(default=100, ge=0)
    after: int = Field(default=100, ge=0)
    rewinds: int = Field(default=REWINDS, ge=1, exclude_if=lambda value: value == REWINDS)

    def identified(self) -> dict[str, Any] | None:
        """What of it makes a run that run: nothing where it only reports."""
        return None if self.action == "report" else self.model_dump(mode="json")


@dataclass(frozen=True)
class Spike:
    """What is above the limit. action: what is done about it. in_a_row: rewinds right before it."""

    limit: float
    action: Action
    in_a_row: int = 0
    of: Literal["loss", "gradient"] = "loss"


@dataclass
class SpikeWatch:
    """The losses and gradients' norms that a run has had of late, and the steps that it has passed over.

    segment: of the run's order record, that they are of: a phase on a mixture. rewinds: the steps that each rewind
    passes over, in the rewinds' order.
    """

    recipe: SpikesRecipe
    segment: int | None = None
    losses: deque[float] = field(default_factory=deque)
    norms: deque[float] = field(default_factory=deque)
    skipped: Skipped = ()
    rewinds: Skipped = ()

    @classmethod
    def resumed(
        cls, recipe: SpikesRecipe, state: Mapping[str, Any] | None, *, skipped: Skipped = (), rewinds: Skipped = ()
    ) -> SpikeWatch:
        """As it was when `state` was made. skipped: of the checkpoint; rewinds: of the run."""
        state = state or {"segment": None}
        losses, norms = (deque(state.get(kept, ()), maxlen=recipe.window) for kept in ("losses", "norms"))
        return cls(recipe, state["segment"], losses, norms, merged((*skipped, *rewinds)), rewinds)

    def state(self) -> dict[str, Any]:
        """What `resumed` needs."""
        return {"segment": self.segment, "losses": list(self.losses), "norms": list(self.norms)}

    def judge(
        self, step: int, loss: float | None, norm: float | None = None, *, segment: int, since: int = 0
    ) -> Spike | None:
        """Whether the loss of a step is a spike, or its gradient's norm, and what is done about it. Remembers both.

        segment: that the step is of; since: its first step.
        """
        if segment != self.segment:
            self.segment = segment
            self.losses, self.norms = deque(maxlen=self.recipe.window), deque(maxlen=self.recipe.window)
        if loss is None:
            return None
        limit = self._exceeded(self.losses, loss, self.recipe.factor)
        steep = (
            None if norm is None else self._exceeded(self.norms, norm, self.recipe.gradient_factor or GRADIENT_FACTOR)
        )
        if limit is not None:
            return self._met(Spike(limit, self.recipe.action), step, since)
        if steep is None:
            return None
        action = "report" if self.recipe.gradient_factor is None else self.recipe.action
        return self._met(Spike(steep, action, of="gradient"), step, since)

    def _exceeded(self, before: deque[float], value: float, factor: float) -> float | None:
        """The limit, if a value is above it. Remembers the value."""
        limit = spike_limit(before, self.recipe, factor)
        before.append(value)
        return limit if limit is not None and value > limit else None

    def _met(self, spike: Spike, step: int, since: int) -> Spike:
        """What is done about it after the rewinds that there were."""
        if spike.action != "rewind":
            return spike
        before = rewinds_in_a_row(self.rewinds, step, since, self.recipe)
        return replace(spike, action="rewind" if before < self.recipe.rewinds else "report", in_a_row=before)

    def skip(self, step: int) -> None:
        """Remembers that a step is passed over."""
        self.skipped = merged((*self.skipped, (step, step + 1)))

    def passes_over(self, step: int) -> bool:
        """Whether a step is one that is passed over."""
        return any(first <= step < stop for first, stop in self.skipped)

    def skipped_before(self, step: int) -> Skipped:
        """The steps before `step` that were passed over."""
        return tuple((first, min(stop, step)) for first, stop in self.skipped if first < step)


def spike_limit(losses: Iterable[float], recipe: SpikesRecipe, factor: float | None = None) -> float | None:
    """The limit after some losses, by the formula above; None if they are fewer than a quarter of the window.

    factor: the recipe's, if it is not given.
    """
    held = list(losses)[-recipe.window :]
    if len(held) < recipe.window // 4:
        return None
    middle = median(held)
    deviation = NORMAL * median(abs(loss - middle) for loss in held)
    return middle + (recipe.factor if factor is None else factor) * max(deviation, LEAST * abs(middle))


def rewinds_in_a_row(rewinds: Skipped, step: int, since: int, recipe: SpikesRecipe) -> int:
    """How many rewinds led to a spike at `step`: each from less than a window after what the one before passes over.

    rewinds: what each passes over, in order. since: what ends before it does not count.
    """
    count = 0
    for _, stop in reversed(rewinds):
        if stop <= since or step - stop >= recipe.window:
            break
        count += 1
        step = stop - recipe.after - 1  # the spike that this one went back for
    return count


def merged(steps: Iterable[tuple[int, int]]) -> Skipped:
    """Ranges of steps in order; those that overlap or meet are one."""
    joined: list[tuple[int, int]] = []
    for first, stop in sorted(steps):
        if joined and first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((first, stop))
    return tuple(joined)
