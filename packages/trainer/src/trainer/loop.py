"""What every worker does: from the newest checkpoint, step by step, to the end of the run.

    resume ─► read step ─► learn ─► metrics ─► save when due ─► … ─► final checkpoint
                 ▲                                  │
                 └──────────────────────────────────┘  until the last step, or until a rank is asked to stop

Where a phase trains other parameters than the one before, the checkpoint between them is resumed from with another
engine, so that a run that was not stopped there goes on as one that was.

All that is random is keyed by (seed, what it is for, step), so the number of the step is the whole state besides the
weights and moments.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, Literal

import torch
from torch import Tensor

from manifest.artifact import Opened
from manifest.checkpoint import Checkpoint
from manifest.errors import InputError, WinnowError
from manifest.identity import hash64, short
from manifest.record import Producer, now
from manifest.store import LocalStore
from trainer import metrics
from trainer.adapt.start import begin_from_model
from trainer.checkpoint import begin, restore, save
from trainer.data.fim import COUNTS
from trainer.data.loader import StepBatch, prefetched
from trainer.data.mixtures import MixtureSources, mixture_sources, mixtures_from
from trainer.engine import Engine, shared_out
from trainer.flops import flops_per_token
from trainer.frozen import frozen_digests, require_frozen
from trainer.memory import peak_bytes, reset_peak
from trainer.model.adapters import adapt, description
from trainer.model.decoder import build
from trainer.packs import open_packs, references
from trainer.retention import retain
from trainer.run import METRICS, Run, mixture_inputs, newest, open_mixture, read_run, rewind, started_from
from trainer.saves import is_due
from trainer.schedule import Curve, curves, weight_decays
from trainer.spike_met import Judgement, met_spike, resumed
from trainer.spikes import Spike, SpikeWatch
from trainer.timeline import tokens_before
from trainer.trainable import Leg, leg_at, legs

Stop = Callable[[], bool]
"""Whether somebody has asked this worker to stop."""

LIBRARIES = ("torch", "deepspeed", "safetensors", "tokenizers")


class DivergedError(WinnowError):
    """The loss or the gradient is no longer a number."""


@dataclass(frozen=True)
class Training:
    """What the steps of a leg need. Held by every rank.

    frozen: what its frozen parameters were at its start. peak_flops: FLOP/s of all workers' matrix products (peak.py).
    """

    store: LocalStore
    run: Run
    leg: Leg
    engine: Engine
    frozen: dict[str, str]
    source: MixtureSources
    curves: tuple[Curve, ...]
    decays: tuple[Curve, ...]
    packs: tuple[Opened, ...]
    spikes: SpikeWatch
    peak_flops: float


Ended = Literal["done", "asked", "rewound"]
"""Why the steps of a leg ended: at its end, because a rank was asked to stop, or to go back to a checkpoint."""


def train(store: LocalStore, run: Run, stop: Stop) -> None:
    """Takes a run to its end, or to the end of the step in which a rank is asked to stop. Every rank calls it.

    Raises:
        DivergedError, FrozenChangedError: the last checkpoint stays as it was.
        ArtifactError: the mixture or the newest checkpoint is not what it was.
    """
    all_legs = legs(run.recipe.trainables, run.timeline)
    while True:
        found = newest(store, run)
        leg = leg_at(all_legs, _done(found))
        training = _prepare(store, run, leg, found)
        try:
            ended = _train_leg(training, found, stop)
        finally:
            training.engine.close()
            del training  # before the next engine is made; DeepSpeed's are reference cycles
            gc.collect()
        if ended == "rewound":
            run = read_run(store.root / run.path)
        elif ended == "asked" or leg.stop == run.timeline.total_steps:
            return


def _done(found: Opened | None) -> int:
    """Steps that a checkpoint has done."""
    return 0 if found is None else found.manifest.step  # type: ignore[attr-defined]


def _prepare(store: LocalStore, run: Run, leg: Leg, found: Opened | None) -> Training:
    read = mixtures_from(run.timeline, _done(found))
    mixtures = [open_mixture(store.where(run.path), run, m) for m in run.mixtures if m.id in read]
    settings = run.recipe.engine
    if settings.attention == "flex" and not torch.cuda.is_available():
        raise InputError(
            f"run {run.name}: engine.attention is flex, which has no backward pass on a CPU, and this worker has no "
            "GPU; use sdpa"
        )
    reset_peak()
    decoder = build(run.shape, seed=run.seed, recompute=settings.activation_checkpointing, attention=settings.attention)
    adapt(decoder, leg.trainable, run.shape, seed=run.seed)
    engine = Engine(decoder, run.recipe.optimizer, shared_out(settings, torch.distributed.get_world_size()))
    packs = open_packs(store.where(run.path), run.packs)
    source = mixture_sources(
        mixtures, run.timeline, rank=engine.rank, world=engine.world, phases=run.recipe.phases, packs=packs
    )
    rates, decays = curves(run.recipe, run.timeline), weight_decays(run.recipe, run.timeline)
    spikes = resumed(run, found.manifest if found else None)  # type: ignore[arg-type]
    return Training(store, run, leg, engine, {}, source, rates, decays, packs, spikes, engine.peak_flops())


def _train_leg(training: Training, found: Opened | None, stop: Stop) -> Ended:
    """Goes on after the newest full checkpoint, else from the start, which is published untrained.

    The start is random, or the model that the run starts from; where a run goes on, that is not read again.
    """
    store, run, engine = training.store, training.run, training.engine
    first = _done(found)
    frozen: dict[str, str] | None = None
    if found is not None and first > training.leg.first:
        frozen = restore(engine, found).state.get("frozen")
    elif found is not None:
        begin(engine, found, training.leg.trainable)
    elif run.base is not None:
        begin_from_model(engine, run, store.where(run.path), training.leg.trainable)
    training = replace(training, frozen=frozen if frozen is not None else frozen_digests(engine))
    if engine.rank == 0:
        rewind(store.root / run.path / METRICS, first)
    if found is None and store.manifest(run.checkpoint_path(0)) is None:
        _save(training, 0, full=False)
    return _steps(training, first, stop)


def _steps(training: Training, first: int, stop: Stop) -> Ended:
    run, directory = training.run, training.store.root / training.run.path
    total = run.timeline.total_steps
    ends = {steps.stop for steps in run.timeline.phase_steps().values()}
    with prefetched(training.source, first, training.leg.stop) as batches:
        for batch in batches:
            done, asked = batch.step + 1, False
            _reset_where_due(training, batch)
            if not training.spikes.passes_over(batch.step):
                outcome = _step(training, batch, stop)
                row, asked = outcome.row, outcome.asked
                if not (math.isfinite(row.loss or 0.0) and math.isfinite(row.grad_norm)):
                    raise _diverged(run, row)
                if training.engine.rank == 0:
                    metrics.append(directory / METRICS, row)
                if outcome.spike is not None and met_spike(training, batch, row, outcome.losses, outcome.spike):
                    return "rewound"
            else:
                asked = training.engine.any(stop())
            if done in ends:
                require_frozen(training.engine, training.frozen, run=run.name, step=done)
            if asked or done == total or is_due(run, done):
                _save(training, done, full=True)
            if asked:
                return "asked"
    return "done"


@dataclass(frozen=True)
class _Outcome:
    """A step's row, whether any rank has been asked to stop, and its spike if it is one: the same on all ranks.

    losses (N,): of this rank's rows, as the engine gives them.
    """

    row: metrics.StepMetrics
    asked: bool
    spike: Spike | None
    losses: Tensor


def _reset_where_due(training: Training, batch: StepBatch) -> None:
    run = training.run
    phase = run.timeline.order.segments[batch.segment].phase
    if run.recipe.phases[phase].optimizer == "reset" and batch.step == run.timeline.phase_steps()[phase].start:
        training.engine.reset_optimizer()


def _step(training: Training, batch: StepBatch, stop: Stop) -> _Outcome:
    """Learns one step, unless it is a spike that is not to be learned."""
    started = time.monotonic()
    run, engine, views = training.run, training.engine, training.source.views
    phase = run.timeline.order.segments[batch.segment].phase
    torch.manual_seed(hash64(f"winnow step 1|{run.seed}|{batch.step}|{engine.rank}") >> 1)
    rate = training.curves[batch.segment].rate(batch.step)
    decay = training.decays[batch.segment].rate(batch.step)
    losses = engine.accumulate(batch, rate, decay)
    sums_V2 = metrics.view_sums(losses, batch, len(views))
    fim_C = torch.from_numpy(batch.fim.sum(axis=0)).double()
    rest = torch.tensor([float(batch.padding), engine.square_of_weights(), float(stop())], dtype=torch.float64)
    everyone = engine.sum(torch.cat([sums_V2.flatten(), fim_C, rest]))
    sums_V2 = everyone[: sums_V2.numel()].view_as(sums_V2)
    loss, per_view = metrics.mean_losses(sums_V2, views)
    fim = dict(zip(COUNTS, map(int, everyone[sums_V2.numel() : -len(rest)]), strict=True))
    judgement = Judgement(training.spikes, run, batch, loss)
    norm = engine.update(judgement.holds)
    spike = judgement.spike
    held = spike is not None and spike.action != "report"
    tokens, before = tokens_before(run.timeline, batch.step + 1), tokens_before(run.timeline, batch.step)
    seconds, seq_len = time.monotonic() - started, run.timeline.paces[batch.segment].seq_len
    per_token = flops_per_token(run.shape, training.leg.trainable, seq_len)
    row = metrics.StepMetrics(
        step=batch.step,
        phase=phase,
        tokens=tokens,
        targets=int(sums_V2[:, 1].sum()),
        loss=loss,
        views=per_view,
        lr=rate,
        grad_norm=norm,
        tokens_per_s=round((tokens - before) / seconds, 1),
        seconds=round(seconds, 4),
        fim=fim if training.source.of_segment(batch.segment).reader.fim else None,
        padding=int(everyone[-3]) if training.packs else None,
        memory_bytes=peak_bytes(),
        weight_decay=decay if run.recipe.schedules_weight_decay else None,
        weight_norm=math.sqrt(float(everyone[-2])),
        rates=engine.rates(),
        mfu=round(per_token * (tokens - before) / seconds / training.peak_flops, 4),
        skipped=held or None,
    )
    return _Outcome(row, bool(everyone[-1] > 0), spike, losses)


def _save(training: Training, step: int, *, full: bool) -> None:
    store, run, engine = training.store, training.run, training.engine
    path = run.checkpoint_path(step)
    record = Checkpoint(
        name=f"{run.name}/{step:08d}",
        run=run.name,
        step=step,
        tokens=tokens_before(run.timeline, step),
        full=full,
        timeline=run.timeline.model_copy(update={"skipped": training.spikes.skipped_before(step)}),
        weights=(),
        inputs=mixture_inputs(store, run, path)
        | started_from(store, run, path)
        | {f"pack {p.name} {short(p.id)}": p for p in references(training.packs, store.where(path))},
        config=run.recipe.identified() | {"size": run.size, "seed": run.seed},
        producer=Producer(
            program="trainer fit",
            version=version("winnow-trainer"),
            libraries={library: version(library) for library in LIBRARIES},
            measured={
                "workers": engine.world,
                "zero": engine.stage,
                "precision": engine.precision,
                "threads": torch.get_num_threads(),
                "peak_flops": round(training.peak_flops),
            },
        ),
        created=now(),
        state={"model": run.shape.model_dump(mode="json"), "seed": run.seed} | _partial(training),
    )
    save(engine, store, path, record)
    if engine.rank == 0:
        retain(store, run)


def _partial(training: Training) -> dict[str, Any]:
    """What a checkpoint says of frozen parameters, of what stands beside them, and of the last losses."""
    adapters = description(training.leg.trainable)
    known = {"frozen": training.frozen, "adapters": adapters, "spikes": training.spikes.state()}
    return {key: value for key, value in known.items() if value}


def _diverged(run: Run, row: metrics.StepMetrics) -> DivergedError:
    what = (
        f"the loss is {row.loss}" if not math.isfinite(row.loss or 0.0) else f"the gradient's norm is {row.grad_norm}"
    )
    return DivergedError(
        f"run {run.name}: {what} at step {row.step} (phase {row.phase}, learning rate {row.lr:.3g}). Its last "
        "checkpoint stays. Lower the schedule's peak, lengthen its warm-up or lower optimizer.clip: that is a new run"
    )
