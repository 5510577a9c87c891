"""A run that starts from a model: asked for, planned, begun.

asked    the base and the other model by their ids, and what the mixture's tokenizer adds: makes nothing
planned  the record of a foreign directory and the rows of new tokens are in the store
begun    the workers' engine has the base's weights and these rows; a run that goes on reads neither again
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from manifest.artifact import Opened, relative_uri
from manifest.errors import RecipeError
from manifest.mixture import Mixture
from manifest.record import Reference
from manifest.store import LocalStore
from trainer.adapt import firing
from trainer.adapt.base import Base, open_base, open_referred, published
from trainer.adapt.rows import KIND, STAGE, Asked, make_rows, open_grown, open_rows, summary_line
from trainer.adapt.settings import VocabularyRecipe
from trainer.adapt.tokens import Growth, growth_between
from trainer.model import grow
from trainer.model.adapters import from_plain
from trainer.model.parameters import TABLES
from trainer.model.shape import Shape
from trainer.run import Run
from trainer.sizes import Resolved
from trainer.trainable import Trainable

if TYPE_CHECKING:
    from trainer.engine import Engine


@dataclass(frozen=True)
class Start:
    """What a run starts from. growth: None if no row is new, or the base is gone and nobody knows any more.

    settings: how the rows begin; other: the donor, or the auxiliary model.
    """

    base: Base
    growth: Growth | None
    settings: VocabularyRecipe | None
    other: Base | None

    def identified(self) -> dict[str, Any]:
        """What of it makes a run that run. `vocabulary` itself is in the recipe."""
        found: dict[str, Any] = {"base": self.base.manifest.id}
        if self.settings is not None:
            found["rows"] = STAGE
        if self.other is not None:
            found["other"] = self.other.manifest.id
        return found


def ask_start(resolved: Resolved, mixture: Opened, store: LocalStore) -> Start | None:
    """What a recipe starts from; None if from nothing.

    Raises WrongArtifact if the mixture's tokenizer is not the base's and no extension of it, RecipeError if it is one
    and the recipe does not say how its rows begin.
    """
    base, settings = resolved.base, resolved.recipe.vocabulary
    if base is None:
        return None
    growth = growth_between(base, mixture) if base.there else None
    if growth is not None and settings is None:
        assert isinstance(mixture.manifest, Mixture)
        raise RecipeError(
            f"{resolved.where}: the tokenizer of mixture {mixture.manifest.name} has {len(growth.rows):,} tokens that "
            f"{base.uri} has not; say how their rows begin, such as `vocabulary: {{new_rows: mean_of_pieces}}`"
        )
    other = None if settings is None else settings.other_model
    return Start(base, growth, settings, None if other is None else open_base(other, store))


@dataclass(frozen=True)
class Planned:
    """What run.json says of it."""

    base: Reference
    rows: Reference | None


def plan_start(
    store: LocalStore, start: Start, mixture: Opened, *, shape: Shape, seed: int, at: str, say: Callable[[str], None]
) -> Planned:
    """Puts into the store what the run at `at` will begin with. Raises as `make_rows`."""
    base = published(start.base, store)
    if start.growth is None:
        if start.settings is not None and start.base.there:
            say("vocabulary: the mixture's tokenizer is the base's, so no row is new")
        return Planned(base.reference(at), None)
    assert start.settings is not None
    other = None if start.other is None else published(start.other, store)
    opened = make_rows(store, Asked(start.settings, base, start.growth, mixture, shape, seed, other))
    say(f"vocabulary: {summary_line(opened)}; {opened.uri}")
    manifest = opened.manifest
    reference = Reference(kind=KIND, name=manifest.name, id=manifest.id, uri=relative_uri(opened.uri, at))
    return Planned(base.reference(at), reference)


def firing_lines(mixture: Opened, store: LocalStore, run: Run) -> Iterator[str]:
    """What to say of a run's new tokens before it begins."""
    assert run.rows is not None
    yield from firing.remarks(firing.count(mixture), open_grown(store.where(run.path), run.rows).texts)


def dry_lines(start: Start, mixture: Opened) -> Iterator[str]:
    """What to say of a run's start while nothing is made."""
    yield f"starts from {start.base.uri}"
    if start.growth is not None and start.settings is not None:
        replaced = f", {len(start.growth.replaced):,} in place of others" if start.growth.replaced else ""
        yield f"vocabulary: {len(start.growth.rows):,} new rows{replaced} ({start.settings.new_rows})"
        yield from firing.remarks(firing.count(mixture), start.growth.texts)


def begin_from_model(engine: Engine, run: Run, at: str, trainable: Trainable) -> None:
    """Puts the model that the run at `at` starts from into an engine, with the rows of new tokens in its tables.

    Every rank calls it. trainable: what the engine trains. Raises ArtifactError or InputError if the model or the rows
    are not what the run was planned with (rank 0 reads every byte of the model).
    """
    assert run.base is not None
    base = open_referred(at, run.base)
    if engine.rank == 0:
        base.verify()
    grown, tables = (None, {}) if run.rows is None else open_rows(at, run.rows)
    ids = torch.tensor([row.id for row in grown.rows] if grown else [], dtype=torch.long)
    read = base.reader()

    def plain(name: str) -> Tensor:
        tensor = read(name)
        if name not in TABLES:
            return tensor
        fresh = tables.get(name, tensor.new_zeros(len(ids), tensor.shape[1]))
        return grow.with_rows(tensor, ids, fresh, run.shape.padded_vocab)

    for name in engine.parameters():
        value = from_plain(name, plain, trainable)
        if value is not None:
            engine.scatter(name, value)
