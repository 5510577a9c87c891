"""The data recipe: what is built. Places and sizes are flags of the command.

`read(path)` is the one place where defaults become values; below it nothing is optional that need not be.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from dataproc.recipe.decontaminate import Decontaminate
from dataproc.recipe.dedup import Dedup, Gates, Holdout
from dataproc.recipe.phases import PhaseRecipe
from dataproc.recipe.reading import read_yaml
from dataproc.recipe.sources import Clean, Source
from dataproc.recipe.tokenizer import TokenizerRecipe
from dataproc.recipe.views import Slice, ViewRecipe
from dataproc.templates import PLAIN, TEMPLATES, Template
from manifest.errors import RecipeError
from manifest.fields import Count, RecipeModel, nearest, validate

PLAIN_NAME = re.compile(r"[\w-]+").fullmatch
Epochs = Annotated[float, Field(gt=0, allow_inf_nan=False)]
RESERVED = ("global", "uri")  # the group of all sources; a key that no identity counts


class DataRecipe(RecipeModel):
    """A whole data recipe. Sources are in the order that `keep: source_order` uses.

    templates: beside those that everyone has (dataproc/templates.py).
    max_epochs: how often a document may be read over all phases, of every stream or per stream.
    """

    name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")
    sources: dict[str, Source] = Field(min_length=1)
    clean: Clean = Clean()
    dedup: Dedup = Dedup()
    holdout: Holdout = Holdout()
    decontaminate: Decontaminate | None = None
    tokenizer: TokenizerRecipe
    templates: dict[str, Template] = {}
    views: dict[str, ViewRecipe] = {}
    block_tokens: Count = Field(8192, ge=16)
    seed: int = Field(0, ge=0, lt=2**63)
    phases: dict[str, PhaseRecipe] = Field(min_length=1)
    max_epochs: Epochs | dict[str, Epochs] | None = None

    @field_validator("sources")
    @classmethod
    def _plain_names(cls, sources: dict[str, Source]) -> dict[str, Source]:
        for name in sources:
            if not PLAIN_NAME(name):
                raise ValueError(f"source {name!r}: use letters, digits, '_' and '-' only")
            if name in RESERVED:
                raise ValueError(f"source {name!r}: the name has a meaning of its own here; take another one")
        return sources

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        for name, view in self.views.items():
            if name in self.sources:
                raise ValueError(
                    f"view {name!r} has the name of a source; a source that nothing slices is a view already"
                )
            if not PLAIN_NAME(name):
                raise ValueError(f"view {name!r}: use letters, digits, '_' and '-' only")
            if view.of not in self.sources:
                raise ValueError(f"view {name!r} is of {view.of!r}; the recipe has {sorted(self.sources)}")
            self._check_answers(name, view)
        self._check_tokenizer()
        known = {*self.sources, *self.views}
        for phase, recipe in self.phases.items():
            unknown = sorted(recipe.names(tuple(self.sources)) - known)
            if unknown:
                raise ValueError(f"phase {phase!r} draws from {unknown}; the recipe has {sorted(known)}")
        return self

    def _check_tokenizer(self) -> None:
        grown = self.tokenizer.grown
        unknown = [] if grown is None else sorted(set(grown.on) - self.sources.keys())
        if unknown:
            near = nearest(unknown[0], list(self.sources))
            raise ValueError(f"tokenizer.{self.tokenizer.existing[0][:-5]}.on: there is no source {unknown[0]!r}{near}")

    def _check_answers(self, name: str, view: ViewRecipe) -> None:
        answers = self.sources[view.of].answers
        if view.template is not None and view.template not in {**TEMPLATES, **self.templates}:
            near = nearest(view.template, [*TEMPLATES, *self.templates])
            raise ValueError(f"view {name!r}: there is no template {view.template!r}{near}")
        if view.template is not None and not answers:
            raise ValueError(
                f"view {name!r} has a template, and source {view.of!r} has no answers to write with it; name the "
                "source's 'prompt' and 'answer', or its 'messages'"
            )
        if view.fim is not None and answers:
            raise ValueError(f"view {name!r}: fim rearranges texts, and of source {view.of!r} only answers are learned")

    @field_validator("templates")
    @classmethod
    def _own_names(cls, templates: dict[str, Template]) -> dict[str, Template]:
        for name in templates:
            if name in TEMPLATES:
                raise ValueError(f"template {name!r} is there already; give yours another name")
        return templates

    @property
    def drops_short_last(self) -> bool:
        """Whether documents under `min_chars` take part in dedup first, as in the original SlimPajama."""
        return self.dedup.preset == "slimpajama"

    @property
    def holds_out_by(self) -> Literal["cluster", "position"] | None:
        """How documents are held out; None if none are."""
        if self.holdout.fraction == 0:
            return None
        return self.holdout.by or ("position" if self.dedup.preset == "slimpajama" else "cluster")

    def view(self, name: str) -> ViewRecipe:
        """A view, or a source as it is."""
        return self.views.get(name) or ViewRecipe(of=name)

    def drawn(self) -> list[str]:
        """The views that some phase draws from: sources in their order, then views in theirs."""
        used = set().union(*(phase.names(tuple(self.sources)) for phase in self.phases.values()))
        return [name for name in (*self.sources, *self.views) if name in used]

    def streams(self) -> dict[str, Slice]:
        """What is tokenised: each slice that some phase draws from, under the name of the first view that reads it."""
        found: dict[str, Slice] = {}
        for name in self.drawn():
            wanted = self.view(name).slice
            if wanted not in found.values():
                found[name] = wanted
        return found

    def template_of(self, stream: Slice) -> Template | None:
        """How the documents of a stream are written; None if they are learned as they are."""
        if not self.sources[stream.source].answers:
            return None
        return {**TEMPLATES, **self.templates}[stream.template] if stream.template else PLAIN

    def stream_of(self, view: str) -> str:
        """The stream that a view reads."""
        wanted = self.view(view).slice
        return next(name for name, found in self.streams().items() if found == wanted)


def read(path: str | Path, *, override: Mapping[str, str] | None = None, base: str | None = None) -> DataRecipe:
    """The recipe in a YAML file. override: gate → reason, on top of those in the file. base: the tokenizer that it
    extends, instead of the one that it names.

    Raises RecipeError: no such file, not YAML, an unknown key, a missing source, weights that do not add up, …
    """
    recipe = validate(DataRecipe, read_yaml(Path(path)), str(path))
    if base is not None:
        recipe = _with_base(recipe, base, str(path))
    if not override:
        return recipe
    gates = recipe.dedup.gates.model_dump()
    gates["override"] = {**gates["override"], **override}
    dedup = recipe.dedup.model_copy(update={"gates": validate(Gates, gates, "--override")})
    return recipe.model_copy(update={"dedup": dedup})


def _with_base(recipe: DataRecipe, base: str, path: str) -> DataRecipe:
    if recipe.tokenizer.grown is None:
        raise RecipeError(
            f"--base {base}: {path} extends no tokenizer; ask for it with tokenizer: {{extend: …}} or {{replace: …}}"
        )
    return recipe.model_copy(update={"tokenizer": recipe.tokenizer.with_base(base)})
