"""`trainer compare`: what phases train, and what that takes, side by side, from what runs have measured.

run.json, metrics.jsonl, the newest checkpoint ─► a row per phase: trained parameters, memory, time, loss
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from manifest.errors import InputError
from manifest.progress import span
from manifest.record import Model
from trainer.model.parameters import count
from trainer.plan_memory import state_bytes
from trainer.recipe import EngineRecipe
from trainer.run import METRICS, Run, read_run
from trainer.trainable import Trainable, trained

LAST = 10
"""The last loss is the mean of the last tenth of the steps."""


class PhaseCost(Model):
    """A phase of a run. parameters: with what stands beside frozen ones. state_bytes: of weights, gradients and AdamW's
    moments, by arithmetic, of each worker; peak_bytes: measured, of worker 0, activations and all else included, since
    the engine was made that the phase shares with those before it that train the same; None in runs of before it was.
    tokens_per_s: the median of the steps but the first. loss: nats per target.
    """

    run: str
    phase: str
    trains: str
    trained: int
    parameters: int
    workers: int
    state_bytes: int
    peak_bytes: int | None
    steps: int
    tokens_per_s: float
    seconds: float
    loss: float | None

    @property
    def share(self) -> float:
        """Of the parameters, how many are trained."""
        return self.trained / self.parameters


def costs(directories: Sequence[Path]) -> list[PhaseCost]:
    """The phases of some runs, in order. Raises NotAnArtifact for what is no run, InputError for one without a step."""
    return [cost for directory in directories for cost in _costs(directory)]


def _costs(directory: Path) -> Iterator[PhaseCost]:
    run = read_run(directory)
    file = directory / METRICS
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    rows = [json.loads(line) for line in lines]
    if not rows:
        raise InputError(f"{directory} has done no step; train it first: there is nothing to compare yet")
    measured = _measured(directory)
    for phase, recipe in run.recipe.phases.items():
        own = [row for row in rows if row["phase"] == phase]
        if own:
            yield _cost(run, phase, recipe.trainable, own, measured)


def _cost(
    run: Run, phase: str, trainable: Trainable, rows: Sequence[dict[str, Any]], measured: dict[str, Any]
) -> PhaseCost:
    workers = int(measured.get("workers", 1))
    done = {"zero": measured.get("zero"), "precision": measured.get("precision")}
    engine = run.recipe.engine.model_copy(update={name: value for name, value in done.items() if value is not None})
    held = count(trained(trainable, run.shape))
    beside = held if trainable.first_row is not None or trainable.lora is not None else 0
    whole = run.shape.parameters + beside
    peaks = [row["memory_bytes"] for row in rows if row.get("memory_bytes") is not None]
    losses = [row["loss"] for row in rows if row["loss"] is not None]
    return PhaseCost(
        run=run.name,
        phase=phase,
        trains=str(trainable),
        trained=held,
        parameters=whole,
        workers=workers,
        state_bytes=_state_bytes(engine, held, whole - held, workers),
        peak_bytes=max(peaks, default=None),
        steps=len(rows),
        tokens_per_s=statistics.median(row["tokens_per_s"] for row in rows[1:] or rows),
        seconds=sum(row["seconds"] for row in rows),
        loss=statistics.fmean(losses[-max(1, len(losses) // LAST) :]) if losses else None,
    )


def _state_bytes(engine: EngineRecipe, held: int, frozen: int, workers: int) -> int:
    """Of trained parameters everything, of frozen ones the weights, which stage 3 shares out."""
    own = state_bytes(held, engine.zero, workers, precision=engine.precision, offload=engine.offload)
    each = 4 if engine.precision == "fp32" else 2
    return own + each * frozen // (workers if engine.zero == 3 else 1)


def _measured(directory: Path) -> dict[str, Any]:
    """What the newest checkpoint says of how it was made: workers, and the precision that `auto` was."""
    for file in sorted(directory.glob("checkpoints/*/manifest.json"), reverse=True):
        return dict(json.loads(file.read_text(encoding="utf-8"))["producer"]["measured"])
    return {}


def table(found: Sequence[PhaseCost]) -> Iterator[str]:
    """Markdown. Shares in brackets are of the first phase that trains everything, or else of the first."""
    full = next((cost for cost in found if cost.trains == "all"), found[0])
    yield "| run | phase | trains | trained parameters | states | peak memory | tokens/s | time | last loss |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for cost in found:
        cells = (
            cost.run,
            cost.phase,
            cost.trains,
            f"{cost.trained:,} of {cost.parameters:,} ({cost.share:.2%})".replace("%", " %"),
            _against(cost.state_bytes, full.state_bytes),
            "–" if cost.peak_bytes is None else _against(cost.peak_bytes, full.peak_bytes),
            f"{cost.tokens_per_s:,.0f} ({cost.tokens_per_s / full.tokens_per_s:.0%})".replace("%", " %"),
            f"{span(cost.seconds)}, {cost.steps:,} steps",
            "–" if cost.loss is None else f"{cost.loss:.4f}",
        )
        yield f"| {' | '.join(cells)} |"


def _against(size: int, full: int | None) -> str:
    share = "" if full is None else f" ({size / full:.0%})".replace("%", " %")
    return f"{size / 1e6:,.1f} MB{share}"
