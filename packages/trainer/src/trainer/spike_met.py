"""What the workers of a run do about a spike (spikes.py): say it, and note which steps are not learned.

    report   event                                                       the step was learned
    skip     event, the step is noted                                    it was read, and not learned
    rewind   event, run.json has the steps that are passed over          all go back to the newest full checkpoint,
                                                                         after too many in a row as `report`

Checkpoints hold the steps that were passed over in `timeline.skipped`, so exposure is exact from any of them. run.json
has those of rewinds, because they must be known before the next checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from manifest.checkpoint import Checkpoint
from manifest.store import LocalStore
from trainer import events
from trainer.data.loader import StepBatch
from trainer.engine import Engine
from trainer.metrics import StepMetrics
from trainer.run import Run, newest, write_run
from trainer.spike_table import write_table
from trainer.spikes import Spike, SpikeWatch


class Trained(Protocol):
    """What is trained: loop.Training."""

    @property
    def store(self) -> LocalStore: ...
    @property
    def run(self) -> Run: ...
    @property
    def engine(self) -> Engine: ...
    @property
    def spikes(self) -> SpikeWatch: ...


def resumed(run: Run, found: Checkpoint | None) -> SpikeWatch:
    """The watch of a run that goes on after a checkpoint, or begins."""
    if found is None:
        return SpikeWatch.resumed(run.recipe.spikes, None, rewinds=run.skipped)
    state, timeline = found.state.get("spikes"), found.timeline
    if state is not None and found.step > 0:  # checkpoints of before it was noted
        state = {"segment": timeline.step(found.step - 1).segment} | state
    return SpikeWatch.resumed(run.recipe.spikes, state, skipped=timeline.skipped, rewinds=run.skipped)


@dataclass
class Judgement:
    """Of one step, once its loss (of all workers) and its gradient are known. spike: what it came to."""

    watch: SpikeWatch
    run: Run
    batch: StepBatch
    loss: float | None
    spike: Spike | None = None

    def holds(self, norm: float) -> bool:
        """Whether the step is not to be learned. norm: of its gradient. Asked once, before the optimiser's step."""
        number = self.batch.segment
        since = self.run.timeline.paces[number].first_step
        self.spike = self.watch.judge(self.batch.step, self.loss, norm, segment=number, since=since)
        return self.spike is not None and self.spike.action != "report"


def met_spike(training: Trained, batch: StepBatch, row: StepMetrics, losses: Tensor, spike: Spike) -> bool:
    """Does what is to be done. Returns whether to go back to the newest full checkpoint. Collective.

    losses (N,): of this rank's rows, in nats over their targets.
    """
    store, run, engine = training.store, training.run, training.engine
    action = spike.action
    said: dict[str, Any] = {"of": spike.of, "loss": row.loss, "grad_norm": row.grad_norm}
    said |= {"limit": spike.limit, "action": action}
    if action == "skip":
        training.spikes.skip(row.step)
        said["skipped"] = [row.step, row.step + 1]
    elif action == "rewind":
        said["to"], passed = _rewind(store, run, row)
        said["skipped"] = passed
        run = run.model_copy(update={"skipped": (*run.skipped, passed)})
    elif spike.in_a_row:
        said["after_rewinds"] = spike.in_a_row
    whole = [loss for part in engine.collect(json.dumps(_means(batch, losses))) for loss in json.loads(part)]
    if engine.rank == 0:
        directory = store.root / run.path
        said |= write_table(directory, row.step, whole)
        if action == "rewind":
            write_run(store, run)
        events.add(directory, "spike", row.step, **said)
    engine.collect("noted")  # what rank 0 writes is there for all
    return action == "rewind"


def _rewind(store: LocalStore, run: Run, row: StepMetrics) -> tuple[int, tuple[int, int]]:
    """The step of the newest full checkpoint, and the steps that are passed over from there."""
    found = newest(store, run)
    after = 0 if found is None else found.manifest.step  # type: ignore[attr-defined]
    phase, recipe = run.timeline.phase_steps()[row.phase], run.recipe.spikes
    first = max(after, phase.start, row.step - recipe.before)
    return after, (first, min(phase.stop, row.step + recipe.after + 1))


def _means(batch: StepBatch, losses: Tensor) -> list[float | None]:
    """The loss of each of this rank's windows, in nats per target; None where nothing is learned."""
    targets = batch.weights.sum(axis=1, dtype=np.float64)
    return [
        float(loss) / float(count) if count > 0 else None
        for loss, count, view in zip(losses.tolist(), targets, batch.views, strict=True)
        if view >= 0
    ]
