"""Whether the views of a mixture can be read as a recipe learns them: asked before a run begins."""

from __future__ import annotations

from collections.abc import Iterator

from manifest.artifact import Opened
from manifest.errors import RecipeError
from manifest.mixture import Mixture, View
from trainer.recipe import PhaseRecipe, TrainRecipe
from trainer.tokenizer import open_tokenizer

LEAST_FIM_WINDOW = 16
"""Tokens. Three of them mark the parts of each rearranged document; in a shorter window little else would be left."""


def require_readable(mixture: Opened, recipe: TrainRecipe, where: str) -> None:
    """Raises RecipeError, naming `where` (the recipe's file), or ArtifactError if the tokenizer is not what it was."""
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    rearranged = [drawn for drawn in _drawn(manifest, recipe) if drawn[3].fim is not None]
    for name, phase, view_name, view in rearranged:
        if phase.seq_len < LEAST_FIM_WINDOW:
            raise RecipeError(
                f"{where}: phases.{name}.seq_len: found {phase.seq_len}; view {view_name!r} of mixture {manifest.name} "
                f"is rearranged for fill-in-the-middle, which needs at least {LEAST_FIM_WINDOW}"
            )
        if phase.loss_on == "answer" and _masked(manifest, view):
            raise RecipeError(
                f"{where}: phases.{name}.loss_on: found 'answer'; view {view_name!r} of mixture {manifest.name} is "
                "rearranged for fill-in-the-middle, after which the masks of its stream fit no longer. Use `all`, or a "
                "view without fim"
            )
    if rearranged:
        open_tokenizer(mixture)


def remarks(mixture: Mixture, recipe: TrainRecipe) -> Iterator[str]:
    """What a user may not expect."""
    for name, phase in recipe.phases.items():
        if phase.loss_on == "answer":
            whole = [v for p, _, v, view in _drawn(mixture, recipe) if p == name and not _masked(mixture, view)]
            if whole:
                yield (
                    f"phase {name!r} has `loss_on: answer`, but the streams of {', '.join(whole)} have no masks: all "
                    "of their tokens are learned"
                )


def _drawn(mixture: Mixture, recipe: TrainRecipe) -> Iterator[tuple[str, PhaseRecipe, str, View]]:
    """Each phase with each view that it draws from."""
    for name, phase in recipe.phases.items():
        for view, blocks in sorted(mixture.phase(name).draw.items()):
            if blocks:
                yield name, phase, view, mixture.views[view]


def _masked(mixture: Mixture, view: View) -> bool:
    return any(shard.mask is not None for shard in mixture.streams[view.stream].shards)
