"""A random search of a proxy, and its transfer in one shot.

    recipe ─► N draws of {rate, init_std, embedding, logits} ─► each on a narrow proxy ─► the best
           ─► a wide model, once with those, once with the recipe's own

So BTLM's constants were found, with about 200 draws on a proxy of 40M parameters. The first draw is the recipe itself,
so the best is never worse than it on the proxy; whether that holds for the wide model is what is checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manifest.errors import RecipeError, WinnowError
from manifest.identity import hash64
from manifest.record import Model
from trainer.fanout import fan_out
from trainer.proxy import Proxies, mup_architecture, peak_of
from trainer.sweep import mean_final
from trainer.trial import Trial
from trainer.workers import Workers

RANGES = {"rate": 4.0, "init_std": 2.0, "embedding": 4.0, "logits": 4.0}
"""How many times smaller or larger than the recipe's a draw may be."""

SLACK = 0.005
"""Relative. The wide model may lose so much with what was found, and the search still passes: seeds differ more."""


class Draw(Model):
    """Constants, and the final loss of the proxy with them; None if it was no number."""

    constants: dict[str, float]
    loss: float | None


class Search(Model):
    """What a search found. own, found: the wide model's final losses with the recipe's constants, and with the best."""

    recipe: str
    mixture: str
    proxy: int
    target: int
    tokens: int
    draws: tuple[Draw, ...]
    best: dict[str, float]
    own: float | None
    found: float | None
    passed: bool


@dataclass(frozen=True)
class SearchOptions:
    """draws: how many, the recipe's own constants with them; proxy, target: widths; seed: of the draws; seeds: how many
    initialisations and orders each loss is averaged over.
    """

    draws: int = 16
    proxy: int = 32
    target: int = 256
    seed: int = 0
    seeds: int = 1


def search(proxies: Proxies, options: SearchOptions, workers: Workers, directory: Path) -> Search:
    """Trains what of the trials is not in `directory` yet, and judges.

    Raises RecipeError; WinnowError if no draw could be learned with; and as `fan_out` does.
    """
    if options.draws < 2:
        raise RecipeError(f"--search {options.draws}: the first draw is the recipe itself; give at least 2")
    if options.proxy >= options.target:
        raise RecipeError(f"--widths: the proxy has {options.proxy}, the target {options.target}; give two widths")
    drawn = [draw(proxies, options.seed, index) for index in range(options.draws)]

    def finals(width: int, several: list[dict[str, float]]) -> list[float | None]:
        trials = [[_trial(proxies, own, width, seed) for seed in range(options.seeds)] for own in several]
        results = fan_out([trial for seeds in trials for trial in seeds], workers, directory)
        return [mean_final(seeds, results) for seeds in trials]

    losses = finals(options.proxy, drawn)
    draws = tuple(Draw(constants=own, loss=loss) for own, loss in zip(drawn, losses, strict=True))
    best = _best(draws)
    own, found = finals(options.target, [drawn[0], best])
    return Search(
        recipe=proxies.recipe.name,
        mixture=proxies.reference.id,
        proxy=options.proxy,
        target=options.target,
        tokens=proxies.pace.tokens,
        draws=draws,
        best=best,
        own=own,
        found=found,
        passed=found is not None and (own is None or found <= own * (1 + SLACK)),
    )


def draw(proxies: Proxies, seed: int, index: int) -> dict[str, float]:
    """The draw of a number: log-uniform around the recipe's constants, which are draw 0."""
    mup = mup_architecture(proxies.recipe).mup
    assert mup is not None
    centre = {
        "rate": peak_of(proxies.recipe),
        "init_std": mup.init_std,
        "embedding": mup.embedding,
        "logits": mup.logits,
    }
    if index == 0:
        return centre
    generator = np.random.default_rng(hash64(f"winnow search 1|{seed}|{index}"))
    return {name: value * RANGES[name] ** float(generator.uniform(-1, 1)) for name, value in centre.items()}


def _trial(proxies: Proxies, constants: Mapping[str, float], width: int, seed: int) -> Trial:
    own = {name: value for name, value in constants.items() if name != "rate"}
    return proxies.trial(width, constants["rate"], seed=seed, constants=own)


def _best(draws: tuple[Draw, ...]) -> dict[str, float]:
    learned = [found for found in draws if found.loss is not None]
    if not learned:
        raise WinnowError(f"none of {len(draws)} draws could be learned with; lower the recipe's peak")
    return min(learned, key=lambda found: found.loss or 0.0).constants


def lines(found: Search) -> Iterator[str]:
    """For a person."""
    ranked = sorted(found.draws, key=lambda drawn: float("inf") if drawn.loss is None else drawn.loss)
    yield f"{found.recipe}: {len(ranked)} draws at width {found.proxy}, {found.tokens:,} tokens each; the best five"
    yield "  loss      " + "".join(f"{name:>12}" for name in RANGES)
    for drawn in ranked[:5]:
        loss = "–" if drawn.loss is None else f"{drawn.loss:.4f}"
        own = "   the recipe's" if drawn == found.draws[0] else ""
        yield f"  {loss:<10}" + "".join(f"{drawn.constants[name]:>12.4g}" for name in RANGES) + own
    own, transferred = (("diverges" if loss is None else f"{loss:.4f}") for loss in (found.own, found.found))
    yield f"  at width {found.target}: {transferred} with the best, {own} with the recipe's"


def verdict(found: Search) -> str | None:
    """What is wrong, if the search does not pass."""
    if found.passed:
        return None
    return (
        f"{found.recipe}: what was best at width {found.proxy} is worse than the recipe at width {found.target}; give "
        "more --tokens, or a wider proxy"
    )
