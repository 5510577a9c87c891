"""The manifest of a checkpoint, and the arithmetic between steps and windows.

    step ──► windows of one segment ──► slots ──► blocks of a stream        (order.py from slots on)

A slot holds block_tokens / seq_len windows. A segment's windows are cut into steps of `windows_per_step`; its
last step takes what is left, so a step never spans two segments and no window is dropped. Nothing here
depends on the number of workers.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from manifest.identity import NOT_IDENTITY_ANYWHERE
from manifest.order import OrderRecord
from manifest.record import FileEntry, Manifest, Model


class Pace(Model):
    """How one segment of the order is stepped through. seq_len in tokens; first_step counts from 0."""

    seq_len: int = Field(gt=0)
    windows_per_step: int = Field(gt=0)
    first_step: int = Field(ge=0)


class StepWindows(Model):
    """The windows of a step: [first, stop) counted from the first window of its segment."""

    segment: int
    first: int
    stop: int

    def part(self, rank: int, world: int) -> range:
        """The windows of one of `world` workers: consecutive, in order of rank, one more or less than another's."""
        count = self.stop - self.first
        return range(self.first + count * rank // world, self.first + count * (rank + 1) // world)


class Timeline(Model):
    """The order record with the pace of each of its segments: which windows each step reads.

    skipped: steps [first, stop), in order and apart, of whose windows nothing was learned: the loss had a spike.
    """

    order: OrderRecord
    paces: tuple[Pace, ...]
    skipped: tuple[tuple[int, int], ...] = Field(default=(), exclude_if=lambda value: value == ())

    @model_validator(mode="after")
    def _paces_fit(self) -> Self:
        if len(self.paces) != len(self.order.segments):
            raise ValueError(f"{len(self.order.segments)} segments, but {len(self.paces)} paces")
        first_step = 0
        for segment, pace in enumerate(self.paces):
            if self.order.block_tokens % pace.seq_len:
                raise ValueError(f"seq_len {pace.seq_len} does not divide blocks of {self.order.block_tokens}")
            if pace.first_step != first_step:
                raise ValueError(f"segment {segment} begins at step {pace.first_step}, not {first_step}")
            first_step += self.steps(segment)
        return self

    def windows_per_slot(self, segment: int) -> int:
        return self.order.block_tokens // self.paces[segment].seq_len

    def windows(self, segment: int) -> int:
        """Windows of a segment."""
        return self.order.segments[segment].slots * self.windows_per_slot(segment)

    def steps(self, segment: int) -> int:
        """Steps of a segment, its last one perhaps smaller."""
        return -(-self.windows(segment) // self.paces[segment].windows_per_step)

    def learns(self, step: int) -> bool:
        """Whether a step is not one of those that were skipped."""
        at = bisect_right(self.skipped, step, key=lambda steps: steps[0])
        return at == 0 or step >= self.skipped[at - 1][1]

    @property
    def total_steps(self) -> int:
        return sum(self.steps(segment) for segment in range(len(self.paces)))

    def phase_steps(self) -> dict[str, range]:
        """The steps of each phase, in order, whichever mixtures it reads."""
        found: dict[str, range] = {}
        for index, (segment, pace) in enumerate(zip(self.order.segments, self.paces, strict=True)):
            first = found[segment.phase].start if segment.phase in found else pace.first_step
            found[segment.phase] = range(first, pace.first_step + self.steps(index))
        return found

    def slot_at(self, step: int) -> int | None:
        """The slot that a step begins with; None if it begins within one. Raises IndexError beyond the last step."""
        windows = self.step(step)
        slot, within = divmod(windows.first, self.windows_per_slot(windows.segment))
        return None if within else self.order.segments[windows.segment].first_slot + slot

    def step(self, step: int) -> StepWindows:
        """The windows that step `step` reads. Raises IndexError beyond the last step."""
        for segment, pace in enumerate(self.paces):
            local = step - pace.first_step
            if 0 <= local < self.steps(segment):
                first = local * pace.windows_per_step
                return StepWindows(
                    segment=segment,
                    first=first,
                    stop=min(first + pace.windows_per_step, self.windows(segment)),
                )
        raise IndexError(f"step {step} of a run of {self.total_steps} steps")

    def step_of(self, segment: int, window: int) -> int:
        """The step that reads a window, counted from the first window of the segment."""
        pace = self.paces[segment]
        return pace.first_step + window // pace.windows_per_step


class TensorFile(FileEntry):
    """A safetensors file and the parameters whose tensors it holds."""

    parameters: tuple[str, ...]


class Checkpoint(Manifest):
    """Manifest of kind `checkpoint`, version 1: safetensors and JSON, no pickles.

    step: steps done, so training goes on with step `step`. `weights` holds the parameters, `moments` (in full
    checkpoints) what the optimiser remembers of them. `state` is what else an exact resume needs: random number
    generators, group settings, counters. The moments are not part of the identity: they are dropped when newer full
    checkpoints are there, and the model stays the same.
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = NOT_IDENTITY_ANYWHERE | {"moments", "full"}

    kind: Literal["checkpoint"] = "checkpoint"
    run: str
    step: int = Field(ge=0)
    tokens: int = Field(ge=0)
    full: bool
    timeline: Timeline
    weights: tuple[TensorFile, ...]
    moments: tuple[TensorFile, ...] = ()
    extra: tuple[FileEntry, ...] = ()
    state: dict[str, Any] = Field(default_factory=dict)

    def files(self) -> Iterator[FileEntry]:
        yield from self.weights
        yield from self.moments
        yield from self.extra
