"""`trainer fit --dry-run`: what a run would be, and what would be warned of. Makes nothing, not even packs."""

from __future__ import annotations

from collections.abc import Iterator

from manifest.mixture import Mixture
from trainer import schedule
from trainer.data.checks import remarks
from trainer.fit import FitOptions, ask
from trainer.packs import find_packs
from trainer.plan import lines, make_plan
from trainer.timeline import make_timeline


def dry_run(options: FitOptions) -> Iterator[str]:
    """For a person: the run's name, its plan, what would be warned of.

    Raises RecipeError, ArtifactError as `fit` does before it begins.
    """
    asked, resolved = ask(options), options.recipe
    manifest = asked.mixture.manifest
    assert isinstance(manifest, Mixture)
    yield f"run {asked.name}, seed {asked.seed}"
    yield from lines(make_plan(resolved, mixture=options.mixture, tokens=options.tokens))
    packs = find_packs(asked.mixture, resolved.recipe)
    timeline = make_timeline(
        manifest, resolved.recipe, where=resolved.where, seed=asked.seed, tokens=options.tokens, packs=packs
    )
    if asked.start is not None:
        from trainer.adapt.start import dry_lines

        yield from dry_lines(asked.start, asked.mixture)
    yield from remarks(manifest, resolved.recipe)
    yield from (f"warning: {warning}" for warning in schedule.warnings(resolved.recipe, timeline))
