"""One row of metrics.jsonl per step.

    step, phase, tokens, loss, views, lr, grad_norm, tokens_per_s, seconds

`step` counts from 0, as `trainer audit --step` does; `tokens` are all tokens read up to and with it; `loss` is nats
per target over the step, `views` the same per view; `lr` is the schedule's rate before each group's multiplier;
`seconds` and `tokens_per_s` are the step's own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from trainer.data.loader import StepBatch


@dataclass(frozen=True)
class StepMetrics:
    """A row."""

    step: int
    phase: str
    tokens: int
    loss: float
    views: Mapping[str, float]
    lr: float
    grad_norm: float
    tokens_per_s: float
    seconds: float


def view_sums(loss_N: Tensor, batch: StepBatch, views: int) -> Tensor:
    """(views, 2): the loss in nats, and the targets, of this rank's windows of each view. Padding counts for none.

    In double precision, so that the sum hardly depends on how the windows are dealt out.
    """
    targets = batch.tokens.shape[1] - 1
    view_N = torch.from_numpy(batch.views)
    real_N = view_N >= 0
    sums = torch.zeros(views, 2, dtype=torch.float64)
    sums[:, 0].index_add_(0, view_N[real_N], loss_N.double().cpu()[real_N])
    sums[:, 1].index_add_(0, view_N[real_N], torch.full((int(real_N.sum()),), float(targets), dtype=torch.float64))
    return sums


def mean_losses(sums_V2: Tensor, views: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Sums over all ranks → the loss of the step, and of each view that it read."""
    total = sums_V2.sum(dim=0)
    per_view = {
        view: float(loss / targets) for view, (loss, targets) in zip(views, sums_V2, strict=True) if targets > 0
    }
    return float(total[0] / total[1]), per_view


def append(file: Path, row: StepMetrics) -> None:
    """Adds a row, in one write."""
    with file.open("a", encoding="utf-8") as out:
        out.write(json.dumps(asdict(row)) + "\n")
