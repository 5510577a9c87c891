"""What a phase asks for → whole blocks of each view.

Fixed parts (epochs, tokens per view) come first; what is left of the phase's total is shared by weights, by temperature
or by UniMax. Shares are of tokens, never of documents, and every part is exact until it is rounded to blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from dataproc import progress
from dataproc.recipe.phases import PhaseRecipe
from manifest.errors import RecipeError

Blocks = Mapping[str, int]
"""View → the blocks of its stream: one epoch of it."""


def draws(name: str, phase: PhaseRecipe, blocks: Blocks, block_tokens: int, sources: tuple[str, ...]) -> dict[str, int]:
    """The blocks that a phase draws from each view. sources: of the recipe, in their order.

    Raises RecipeError if a view that must be drawn from has no tokens, if the fixed parts are more than the total, if
    UniMax's caps are less than it, or if nothing is drawn.
    """
    for view in sorted(phase.names(sources)):
        if view not in blocks:
            raise RecipeError(
                f"phase {name!r} draws from {view!r}, but nothing of that source is left to train on after dedup and "
                "hold-out; give it more text, or take it out of the phase"
            )
    found = _fixed(phase, blocks, block_tokens)
    if phase.tokens is not None:
        total = max(1, round(Fraction(phase.tokens, block_tokens))) - sum(found.values())
        if total <= 0:
            raise RecipeError(
                f"phase {name!r}: its epochs and tokens per view take {sum(found.values()) * block_tokens:,} tokens; "
                f"of the total of {phase.tokens:,} none is left to share. Raise the total, or lower them"
            )
        found |= _shared(name, phase, blocks, total, block_tokens, sources)
    if sum(found.values()) == 0:
        raise RecipeError(f"phase {name!r} draws no block of {block_tokens} tokens; give it more tokens or epochs")
    return found


def _fixed(phase: PhaseRecipe, blocks: Blocks, block_tokens: int) -> dict[str, int]:
    found = {view: _at_least_one(Fraction(epochs) * blocks[view], epochs) for view, epochs in phase.epochs.items()}
    budgets = phase.budgets.items()
    return found | {view: _at_least_one(Fraction(tokens, block_tokens), tokens) for view, tokens in budgets}


def _at_least_one(blocks: Fraction, asked: float) -> int:
    return max(1, round(blocks)) if asked > 0 else 0


def _shared(
    name: str, phase: PhaseRecipe, blocks: Blocks, total: int, block_tokens: int, sources: tuple[str, ...]
) -> dict[str, int]:
    views = phase.shared_by_size(sources)
    if phase.unimax is not None:
        return unimax(name, {view: blocks[view] for view in views}, total, phase.unimax.max_epochs)
    weights: Mapping[str, float] = phase.weights
    if phase.temperature is not None:
        weights = {view: blocks[view] ** (1 / phase.temperature) for view in views}
    found = apportion(weights, total)
    for view in (view for view, weight in weights.items() if weight > 0 and found[view] == 0):
        progress.say(f"phase {name!r}: {view!r} is not drawn; its share is less than a block of {block_tokens}")
    return found


def apportion(weights: Mapping[str, float], total: int) -> dict[str, int]:
    """`total` blocks by weight: whole parts first, the rest to the largest remainders (Hamilton's method)."""
    whole = sum(Fraction(weight) for weight in weights.values())
    exact = {name: Fraction(weight) / whole * total for name, weight in weights.items()}
    parts = {name: int(share) for name, share in exact.items()}
    by_remainder = sorted(exact, key=lambda name: (parts[name] - exact[name], name))
    for name in by_remainder[: total - sum(parts.values())]:
        parts[name] += 1
    return parts


def unimax(name: str, blocks: Blocks, total: int, max_epochs: float) -> dict[str, int]:
    """`total` blocks, the same number from each view, but none over ⌊max_epochs × its blocks⌋: from the smallest to the
    largest, each takes its equal part of what is left, or its cap (Chung et al., "UniMax", 2023, algorithm 1).

    Raises RecipeError if all caps together are less than the total.
    """
    caps = {view: int(Fraction(max_epochs) * size) for view, size in blocks.items()}
    if sum(caps.values()) < total:
        raise RecipeError(
            f"phase {name!r} asks for {total:,} blocks; {max_epochs:g} epochs of {', '.join(caps)} are "
            f"{sum(caps.values()):,}. Lower its tokens, raise unimax.max_epochs, or give the sources more text"
        )
    found: dict[str, int] = {}
    for index, view in enumerate(sorted(caps, key=lambda view: (caps[view], view))):
        found[view] = min(caps[view], (total - sum(found.values())) // (len(caps) - index))
    return found
