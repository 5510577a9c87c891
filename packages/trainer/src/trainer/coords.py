"""The coordinate check (Yang et al., 2022, appendix D.1): does a step change activations as much at every width?

    recipe ─► decoders of ≥ 4 widths, with muP and without ─► a few steps of AdamW on one batch
           ─► mean |activation| per place and step ─► slope of its logarithm over that of the width

With muP no slope is far from 0 once a step is learned: what is tuned on a narrow model holds for a wide one. In the
standard parametrisation activations grow with the width. Nothing is read: tokens are random, the same for every width.

Two places need a word. Logits as a whole are, of an untrained model, sums of independent terms that shrink as width^-½,
as muP means them to, and most of them are no target: only growth counts against them. `change of targets' logits` is
how much the logits of the batch's own targets have changed, which is what a step is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from manifest.errors import RecipeError
from manifest.identity import hash64
from manifest.record import Model
from trainer.loss import window_losses
from trainer.model.decoder import Decoder, build
from trainer.model.shape import Shape
from trainer.optimizer import adamw, parameter_groups
from trainer.progress import track
from trainer.proxy import at_width, mup_architecture, peak_of
from trainer.recipe import TrainRecipe

LEAST_WIDTHS = 4
SLOPE = 0.2
"""A slope within this of 0 is flat: over eight times the width it is a factor of 1.5."""

HEADS = 4
LAYERS = 2
VOCABULARY = 256
ROWS, SEQ_LEN = 8, 32

LOGITS = "logits"
PLACES = (
    "embedding",
    "queries",
    "keys",
    "values",
    "attention output",
    "feed-forward output",
    "states",
    LOGITS,
    "change of targets' logits",
)
WITHIN = {
    "attention.query": "queries",
    "attention.key": "keys",
    "attention.value": "values",
    "attention": "attention output",
    "feedforward": "feed-forward output",
}
"""Modules of a layer, and what they put out."""

STANDARD, MUP = "standard", "muP"


class Slopes(Model):
    """A parametrisation. sizes[place][width][step]: mean |activation|, averaged over seeds; step 0 is untrained.
    slopes[place][step]: of log size over log width. steep: the places and steps whose slope is not flat.
    """

    passed: bool
    sizes: dict[str, dict[int, tuple[float, ...]]]
    slopes: dict[str, tuple[float, ...]]
    steep: tuple[str, ...]


class CoordinateCheck(Model):
    """What a check found. passed: muP is flat, and the standard parametrisation is not."""

    recipe: str
    widths: tuple[int, ...]
    steps: int
    seeds: int
    rate: float
    tolerance: float
    passed: bool
    parametrisations: dict[str, Slopes]


@dataclass(frozen=True)
class CheckOptions:
    """widths: of the decoders. rate: None is a tenth of the recipe's first peak, which is for large batches and comes
    after a warm-up: at all of it, BTLM's narrowest models leave the regime that the theory is about within four steps.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    steps: int = 4
    seeds: int = 2
    rate: float | None = None


def check(recipe: TrainRecipe, options: CheckOptions) -> CoordinateCheck:
    """Checks a recipe. Raises RecipeError."""
    if len(set(options.widths)) < LEAST_WIDTHS:
        raise RecipeError(f"--widths: found {len(set(options.widths))} widths; a slope needs at least {LEAST_WIDTHS}")
    rate = options.rate or peak_of(recipe) / 10
    widths = tuple(sorted(set(options.widths)))
    architecture = mup_architecture(recipe)
    sizes: dict[str, dict[int, list[list[list[float]]]]] = {}
    jobs = [(kind, width, seed) for kind in (STANDARD, MUP) for width in widths for seed in range(options.seeds)]
    for kind, width, seed in track(jobs, label="decoders", total=len(jobs), unit="decoders"):
        shape = at_width(architecture, width, layers=LAYERS, heads=HEADS, vocab_size=VOCABULARY, mup=kind == MUP)
        found = activations(recipe, shape, steps=options.steps, rate=rate, seed=seed)
        sizes.setdefault(kind, {}).setdefault(width, []).append(found)
    kinds = {kind: _slopes(by_width) for kind, by_width in sizes.items()}
    return CoordinateCheck(
        recipe=recipe.name,
        widths=widths,
        steps=options.steps,
        seeds=options.seeds,
        rate=rate,
        tolerance=SLOPE,
        passed=kinds[MUP].passed and not kinds[STANDARD].passed,
        parametrisations=kinds,
    )


def activations(recipe: TrainRecipe, shape: Shape, *, steps: int, rate: float, seed: int) -> list[list[float]]:
    """Mean |activation| of every place, (steps + 1) × PLACES, before each of `steps` steps and after the last."""
    decoder = build(shape, seed=seed)
    optimizer = adamw(parameter_groups(decoder, shape, recipe.optimizer), recipe.optimizer)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_multiplier"]
    generator = torch.Generator().manual_seed(hash64(f"winnow coords 1|{seed}") >> 1)
    tokens_BT = torch.randint(0, shape.vocab_size, (ROWS, SEQ_LEN + 1), generator=generator)
    untrained, first_BTV = _sizes(decoder, tokens_BT[:, :-1])
    found = [[*untrained, 0.0]]
    for _ in range(steps):
        loss_B = window_losses(decoder(tokens_BT[:, :-1]), tokens_BT[:, 1:])
        optimizer.zero_grad()
        torch.autograd.backward(loss_B.sum() / tokens_BT[:, 1:].numel())
        nn.utils.clip_grad_norm_(decoder.parameters(), recipe.optimizer.clip)
        optimizer.step()
        learned, logits_BTV = _sizes(decoder, tokens_BT[:, :-1])
        change_BTV = logits_BTV - first_BTV
        found.append([*learned, float(change_BTV.gather(2, tokens_BT[:, 1:, None]).abs().mean())])
    return found


def _sizes(decoder: Decoder, tokens_BT: Tensor) -> tuple[list[float], Tensor]:
    """Mean |x| of every place but the last in one forward pass, averaged over layers; the logits."""
    seen: dict[str, list[float]] = {place: [] for place in PLACES[:-1]}

    def note(place: str) -> Callable[[nn.Module, object, Tensor], None]:
        return lambda module, inputs, output: seen[place].append(float(output.abs().mean()))

    modules = dict(decoder.named_modules())
    places = [("embedding", "embedding")] + [
        (place, f"layers.{layer}.{name}") for layer in range(decoder.shape.layers) for name, place in WITHIN.items()
    ]
    hooks = [modules[name].register_forward_hook(note(place)) for place, name in places]
    hooks.append(
        decoder.final_norm.register_forward_pre_hook(lambda _, x: seen["states"].append(float(x[0].abs().mean())))
    )
    try:
        with torch.no_grad():
            logits_BTV: Tensor = decoder(tokens_BT)
            seen["logits"].append(float(logits_BTV.abs().mean()))
    finally:
        for hook in hooks:
            hook.remove()
    return [sum(values) / len(values) for values in seen.values()], logits_BTV


def _slopes(by_width: Mapping[int, Sequence[Sequence[Sequence[float]]]]) -> Slopes:
    """(seeds, steps + 1, places) of every width → sizes and slopes."""
    mean = {width: np.mean(np.asarray(found), axis=0) for width, found in by_width.items()}
    log_W = np.log(np.asarray(list(mean), dtype=np.float64))
    sizes: dict[str, dict[int, tuple[float, ...]]] = {}
    slopes: dict[str, tuple[float, ...]] = {}
    for index, place in enumerate(PLACES):
        sizes[place] = {width: tuple(float(size) for size in found[:, index]) for width, found in mean.items()}
        log_WS = np.log(np.maximum([found[:, index] for found in mean.values()], np.finfo(np.float64).tiny))
        slopes[place] = tuple(float(slope) for slope in np.polyfit(log_W, log_WS, 1)[0])
    steep = tuple(_steep(slopes))
    return Slopes(passed=not steep, sizes=sizes, slopes=slopes, steep=steep)


def _steep(slopes: Mapping[str, Sequence[float]]) -> Iterator[str]:
    """Where an activation is not as large at every width, once a step is learned."""
    for place, of_step in slopes.items():
        for step, slope in enumerate(of_step):
            least = -math.inf if place == LOGITS else -SLOPE
            if step > 0 and not least <= slope <= SLOPE:
                yield f"{place} after step {step}: {slope:+.2f}"


def lines(found: CoordinateCheck) -> Iterator[str]:
    """For a person: the steepest slope of each place, with muP and without."""
    yield f"{found.recipe}: mean |activation| over widths {', '.join(map(str, found.widths))}, as width to the power of"
    yield f"  {'after ' + str(found.steps) + ' steps':<26}{STANDARD:>10}{MUP:>10}"
    for place in PLACES:
        last = {kind: slopes.slopes[place][-1] for kind, slopes in found.parametrisations.items()}
        yield f"  {place:<26}{last[STANDARD]:>+10.2f}{last[MUP]:>+10.2f}"


def verdict(found: CoordinateCheck) -> str | None:
    """What is wrong, if the check does not pass."""
    if found.passed:
        return None
    steep = found.parametrisations[MUP].steep
    if steep:
        return (
            f"{found.recipe}: with muP activations depend on the width (tolerance ±{found.tolerance}): "
            f"{'; '.join(steep[:3])}{' …' if len(steep) > 3 else ''}. If they only do at this rate ({found.rate:g}), "
            "lower --rate; else the parametrisation is wrong"
        )
    return (
        f"{found.recipe}: the standard parametrisation passes too, so this check shows nothing; give wider --widths or "
        "more --steps"
    )
