"""A trial: a decoder trained for a short while in one process, for what its losses say. Nothing else of it is kept.

    Trial ─► steps of the mixture ─► forward, backward, clip, AdamW ─► the loss of every step

It learns as a run does (tests hold the two together), without DeepSpeed, checkpoints or other workers, so that hundreds
of them can be spread over processes or a cluster. `python -m trainer.trial` reads trials from standard input, a line of
JSON each, and answers each with a line.
"""

from __future__ import annotations

import math
import os
import sys
import time

import torch
from torch import nn

from manifest.artifact import open_artifact
from manifest.errors import RecipeError, WinnowError, WrongArtifact
from manifest.identity import digest_of, short
from manifest.mixture import Mixture
from manifest.record import Model, Reference
from trainer.data.loader import StepBatch
from trainer.data.mixtures import mixture_sources
from trainer.loss import window_losses
from trainer.model.decoder import Decoder, build
from trainer.model.shape import Shape
from trainer.optimizer import adamw, parameter_groups
from trainer.recipe import TrainRecipe
from trainer.schedule import curves, weight_decays
from trainer.timeline import make_timeline
from trainer.trainable import ALL

VERSION = "trial/1"
LAST = 0.2
"""The share of the steps, at the end, over which the final loss is averaged: single steps are too noisy to compare."""


class Trial(Model):
    """What is trained: `recipe` has the pace, rates and constants of the trial; `mixture.uri` is absolute."""

    recipe: TrainRecipe
    shape: Shape
    mixture: Reference
    seed: int
    tokens: int

    @property
    def key(self) -> str:
        """The digest of what decides the losses."""
        what = {"recipe": self.recipe.identified(), "shape": self.shape.model_dump(mode="json")}
        return digest_of(
            what | {"version": VERSION, "mixture": self.mixture.id, "seed": self.seed, "tokens": self.tokens}
        )

    @property
    def cost(self) -> float:
        """FLOPs, about."""
        longest = max(phase.seq_len for phase in self.recipe.phases.values())
        return self.shape.flops_per_token(longest) * self.tokens


class TrialResult(Model):
    """losses: of the steps, in nats per target, up to where one was no number. final: averaged over the last of them;
    None if it came to none.
    """

    key: str
    losses: tuple[float, ...]
    final: float | None
    seconds: float


def require_trials(recipe: TrainRecipe) -> None:
    """Raises RecipeError if a recipe does not train a whole decoder from the start, over windows as they come."""
    for name, phase in recipe.phases.items():
        if phase.trainable != ALL or phase.packing == "best_fit":
            raise RecipeError(
                f"{recipe.name}: phase {name!r} trains a part of the decoder, or packs documents; trials train all of "
                "it over windows as they come"
            )


def run_trial(trial: Trial) -> TrialResult:
    """Trains. Raises ArtifactError if the mixture is not what it was, RecipeError if recipe and mixture do not fit."""
    began = time.monotonic()
    opened = open_artifact(trial.mixture.uri, kind="mixture")
    manifest = opened.manifest
    assert isinstance(manifest, Mixture)
    if manifest.id != trial.mixture.id:
        raise WrongArtifact(f"{opened.uri} is {short(manifest.id)}; the trial reads {short(trial.mixture.id)}")
    recipe = trial.recipe
    timeline = make_timeline(manifest, recipe, where=recipe.name, seed=trial.seed, tokens=trial.tokens)
    source = mixture_sources([opened], timeline, rank=0, world=1, phases=recipe.phases)
    rates, decays = curves(recipe, timeline), weight_decays(recipe, timeline)
    learner = _Learner(trial)
    losses: list[float] = []
    for step in range(timeline.total_steps):
        batch = source.read(step)
        loss = learner.step(batch, rates[batch.segment].rate(step), decays[batch.segment].rate(step))
        if not math.isfinite(loss):
            break
        losses.append(loss)
    whole = len(losses) == timeline.total_steps
    last = losses[-max(1, round(LAST * len(losses))) :]
    return TrialResult(
        key=trial.key,
        losses=tuple(losses),
        final=sum(last) / len(last) if whole else None,
        seconds=round(time.monotonic() - began, 3),
    )


class _Learner:
    """A decoder and its optimiser."""

    def __init__(self, trial: Trial) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.decoder: Decoder = build(trial.shape, seed=trial.seed).to(self.device)
        self.optimizer = adamw(
            parameter_groups(self.decoder, trial.shape, trial.recipe.optimizer), trial.recipe.optimizer
        )
        self.clip = trial.recipe.optimizer.clip
        self.micro_batch_tokens = trial.recipe.engine.micro_batch_tokens

    def step(self, batch: StepBatch, rate: float, weight_decay: float) -> float:
        """Learns a step; returns its loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_multiplier"]
            group["weight_decay"] = weight_decay * group["decay_multiplier"]
        rows, seq_len = batch.tokens.shape
        size = max(1, self.micro_batch_tokens // seq_len)
        targets = max(1.0, float(batch.weights.sum(dtype="float64")))
        total = 0.0
        for first in range(0, rows, size):
            part = slice(first, first + size)
            tokens_BT = torch.from_numpy(batch.tokens[part]).to(self.device)
            weights_BT = torch.tensor(batch.weights[part], device=self.device)
            documents_BT = None
            if batch.documents is not None:
                documents_BT = torch.from_numpy(batch.documents[part]).to(self.device)[:, :-1]
            loss = (
                window_losses(self.decoder(tokens_BT[:, :-1], documents_BT), tokens_BT[:, 1:], weights_BT).sum()
                / targets
            )
            torch.autograd.backward(loss)
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(self.decoder.parameters(), self.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return total


def answer(line: str) -> str:
    """A trial as JSON → its result as JSON."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    return run_trial(Trial.model_validate_json(line)).model_dump_json()


def main() -> None:
    """Answers until standard input closes, as it does when the process that started this one ends."""
    for line in sys.stdin:
        try:
            said = answer(line)
        except WinnowError as error:
            said = f"error {error.exit_code} {' '.join(str(error).split())}"
        print(said, flush=True)


if __name__ == "__main__":
    main()
