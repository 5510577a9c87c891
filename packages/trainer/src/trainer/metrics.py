"""One row of metrics.jsonl per step.

    step, phase, tokens, targets, loss, views, lr, grad_norm, tokens_per_s, seconds, fim, padding, weight_decay

`step` counts from 0, as `trainer audit --step` does; `tokens` are all tokens read up to and with it; `targets` are
those that the step learned; `loss` is nats per target over the step (null if it has none), `views` the same per view;
`lr` is the schedule's rate before each group's multiplier; `seconds` and `tokens_per_s` are the step's own. `fim`, in
runs that have it: what fill-in-the-middle did in the step (see data/fim.py). `padding`, in runs with a phase of
`packing: best_fit`: how many of the step's tokens are of no document. `weight_decay`, in runs that schedule it.
`skipped`, true, where the step was read and not learned (spikes.py).
`weight_norm`: of all trained parameters before the step, in fp32. `rates`: the learning rate of each group of the
optimiser. `mfu`: the step's FLOPs (flops.py: of what the phase trains) over those of the workers' matrix products in
the same time; the peak is in the checkpoints' `producer.measured.peak_flops` (peak.py). `memory_bytes`: the most memory
that worker 0 has needed since the phase's engine was made (memory.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.data.loader import StepBatch


@dataclass(frozen=True)
class StepMetrics:
    """A row."""

    step: int
    phase: str
    tokens: int
    targets: int
    loss: float | None
    views: Mapping[str, float]
    lr: float
    grad_norm: float
    tokens_per_s: float
    seconds: float
    fim: Mapping[str, int] | None = None
    padding: int | None = None
    memory_bytes: int | None = None
    weight_decay: float | None = None
    weight_norm: float | None = None
    rates: Mapping[str, float] | None = None
    mfu: float | None = None
    skipped: bool | None = None


def view_sums(loss_N: Tensor, batch: StepBatch, views: int) -> Tensor:
    """(views, 2): the loss in nats, and the targets, of this rank's windows of each view. Only what is learned counts.

    In double precision, so that the sum hardly depends on how the windows are dealt out.
    """
    view_N = torch.from_numpy(batch.views)
    targets_N = torch.from_numpy(batch.weights.sum(axis=1, dtype=np.float64))
    real_N = view_N >= 0
    sums = torch.zeros(views, 2, dtype=torch.float64)
    sums[:, 0].index_add_(0, view_N[real_N], loss_N.double().cpu()[real_N])
    sums[:, 1].index_add_(0, view_N[real_N], targets_N[real_N])
    return sums


def mean_losses(sums_V2: Tensor, views: Sequence[str]) -> tuple[float | None, dict[str, float]]:
    """Sums over all ranks → the loss of the step, and of each view of which it learned; None if of none."""
    total = sums_V2.sum(dim=0)
    per_view = {
        view: float(loss / targets) for view, (loss, targets) in zip(views, sums_V2, strict=True) if targets > 0
    }
    return (float(total[0] / total[1]) if total[1] > 0 else None), per_view


def append(file: Path, row: StepMetrics) -> None:
    """Adds a row, in one write."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(_fields(row)) + "\n")


def _fields(row: StepMetrics) -> dict[str, Any]:
    optional = {held.name for held in fields(row) if held.default is None}
    return {key: value for key, value in asdict(row).items() if key not in optional or value is not None}
