"""Mixture + recipe + seed → the timeline of a run: which windows every step reads.

The phases of both must be the same, in the same order. `tokens` scales all draws pro rata, and the result stands in the
order record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from manifest.checkpoint import Pace, Timeline
from manifest.errors import RecipeError
from manifest.mixture import Mixture
from manifest.order import OrderRecord, append
from trainer.packs import Packs, draws_of
from trainer.recipe import PhaseRecipe, TrainRecipe

Draws = dict[str, dict[str, int]]
"""Blocks per phase and view."""


def run_seed(mixture: Mixture, seed: int | None) -> int:
    """The seed of initialisation and order: that given, else the mixture's. Raises RecipeError if its phases differ."""
    if seed is not None:
        return seed
    seeds = {phase.seed for phase in mixture.phases}
    if len(seeds) > 1:
        raise RecipeError(f"mixture {mixture.name}: its phases have the seeds {sorted(seeds)}; choose one with --seed")
    return seeds.pop()


def make_timeline(
    mixture: Mixture, recipe: TrainRecipe, *, where: str, seed: int, tokens: int | None, packs: Packs | None = None
) -> Timeline:
    """The timeline of a run. packs: of its `best_fit` phases; without them, as if these had no padding.

    Raises RecipeError, naming `where` (the recipe's file), if mixture and recipe do not fit.
    """
    require_same_phases(mixture, recipe, where)
    draws = scaled_draws({phase.name: dict(phase.draw) for phase in mixture.phases}, mixture.block_tokens, tokens)
    order = OrderRecord(seed=seed, block_tokens=mixture.block_tokens)
    paces: list[Pace] = []
    for name, phase in recipe.phases.items():
        _require_whole_blocks(mixture, name, phase, where)
        first_step = Timeline(order=order, paces=tuple(paces)).total_steps
        taken, streams = draws_of(mixture, phase, draws[name], packs or {})
        order = append(order, mixture=mixture.id, phase=name, draws=taken, streams=streams)
        paces.append(
            Pace(seq_len=phase.seq_len, windows_per_step=phase.tokens_per_step // phase.seq_len, first_step=first_step)
        )
    return Timeline(order=order, paces=tuple(paces))


def tokens_before(timeline: Timeline, step: int) -> int:
    """Tokens that the first `step` steps read."""
    total = 0
    for segment, pace in enumerate(timeline.paces):
        steps = min(max(step - pace.first_step, 0), timeline.steps(segment))
        total += min(steps * pace.windows_per_step, timeline.windows(segment)) * pace.seq_len
    return total


def require_same_phases(mixture: Mixture, recipe: TrainRecipe, where: str) -> None:
    """Raises RecipeError, naming `where` (the recipe's file), if the two have other phases or another order of them."""
    learned, read = list(recipe.phases), [phase.name for phase in mixture.phases]
    if learned == read:
        return
    has = f"mixture {mixture.name}-{mixture.id[:8]} has {', '.join(map(repr, read))}"
    for name in learned:
        if name not in read:
            raise RecipeError(
                f"{where}: phase {name!r} is not in the mixture ({has}); rename it, or build a mixture with that phase"
            )
    for name in read:
        if name not in learned:
            raise RecipeError(f"{where}: phase {name!r} of the mixture is missing ({has}); say how it is learned")
    raise RecipeError(f"{where}: the phases are in the order {', '.join(learned)}; {has}. Put them in the same order")


def _require_whole_blocks(mixture: Mixture, name: str, phase: PhaseRecipe, where: str) -> None:
    if mixture.block_tokens % phase.seq_len:
        raise RecipeError(
            f"{where}: phases.{name}.seq_len: found {phase.seq_len}, which does not divide the blocks of "
            f"{mixture.block_tokens} tokens of mixture {mixture.name}; choose a divisor, or build it with other blocks"
        )


def scaled_draws(draws: Mapping[str, Mapping[str, int]], block_tokens: int, tokens: int | None) -> Draws:
    """The draws scaled to `tokens` in all, in whole blocks; each view that drew something still draws, if they reach.

    Raises RecipeError if there is not a block for every phase.
    """
    if tokens is None:
        return {phase: dict(views) for phase, views in draws.items()}
    events = [(phase, view, blocks) for phase, views in draws.items() for view, blocks in views.items() if blocks]
    shares = apportion([blocks for _, _, blocks in events], tokens // block_tokens)
    scaled: Draws = {phase: {} for phase in draws}
    for (phase, view, _), blocks in zip(events, shares, strict=True):
        scaled[phase][view] = blocks
    empty = [phase for phase, views in scaled.items() if not any(views.values())]
    if empty:
        raise RecipeError(
            f"--tokens {tokens} is {tokens // block_tokens} blocks of {block_tokens} tokens, which leaves none for "
            f"phase {empty[0]!r}; give at least {len(events) * block_tokens}"
        )
    return scaled


def apportion(weights: Sequence[int], total: int) -> list[int]:
    """Whole numbers that sum to `total`, in proportion to positive weights, by largest remainder.

    None of them is 0 if `total` is enough for one each.
    """
    fixed: dict[int, int] = {}
    while total >= len(weights):  # those whose share is under one get one; the others share what is left
        open_weight = sum(w for i, w in enumerate(weights) if i not in fixed)
        small = [i for i, w in enumerate(weights) if i not in fixed and w * (total - len(fixed)) < open_weight]
        if not small:
            break
        fixed.update(dict.fromkeys(small, 1))
    open_ones = [i for i in range(len(weights)) if i not in fixed]
    left = total - len(fixed)
    open_weight = sum(weights[i] for i in open_ones)
    quotas = {i: Fraction(weights[i] * left, open_weight) for i in open_ones}
    shares = fixed | {i: int(quota) for i, quota in quotas.items()}
    by_remainder = sorted(open_ones, key=lambda i: (int(quotas[i]) - quotas[i], i))
    for i in by_remainder[: total - sum(shares.values())]:
        shares[i] += 1
    return [shares[i] for i in range(len(weights))]
