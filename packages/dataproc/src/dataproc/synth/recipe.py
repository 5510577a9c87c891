"""The synth recipe: what a corpus with planted near-duplicates is made of. Sizes and places are flags.

    documents = base documents + copies + templates' members

Shares are of all documents (`copies.share`, `templates[].share`), of copies (`copies.kinds`), or of documents per
source (`into`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from dataproc.recipe.phases import WEIGHT_TOLERANCE
from dataproc.recipe.reading import read_yaml
from dataproc.recipe.sources import Source
from manifest.fields import Count, RecipeModel, nearest, validate

Part = Annotated[float, Field(ge=0, le=1)]

KINDS: Mapping[str, str] = {
    "exact": "",
    "surface": "",
    "edits": "share of words that are edited",
    "blocks": "share of words that is one replaced block",
    "boilerplate": "share of words that is replaced by a header and a footer of another site",
    "truncated": "share of words that is left",
    "appended": "words that are appended, as a share of those there",
}
"""Every kind of copy, and what its parameter is; '' where there is none."""


class Lengths(RecipeModel):
    """Base documents have a lognormal number of characters, within limits; a short raw record makes a short one."""

    median_chars: Count = Field(1900, gt=0)
    sigma: float = Field(0.95, ge=0, le=2)
    min_chars: Count = Field(300, gt=0)
    max_chars: Count = Field(100_000, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if not self.min_chars <= self.median_chars <= self.max_chars:
            raise ValueError(
                f"expected min_chars ≤ median_chars ≤ max_chars, found {self.min_chars}, {self.median_chars}, "
                f"{self.max_chars}"
            )
        return self


class Kind(RecipeModel):
    """A kind of copy: its share of all copies, in equal parts over `params`."""

    share: Part
    params: tuple[Annotated[float, Field(gt=0, le=1)], ...] = ()


class ClusterSizes(RecipeModel):
    """How many copies a base document has that has any: k with probability in proportion to k^-exponent."""

    exponent: float = Field(2.0, ge=0, le=10)
    max_copies: Count = Field(200, ge=1)


class Copies(RecipeModel):
    """Planted copies. `moved`: the share of copies whose source is drawn anew; the others stay with their base."""

    share: Part = 0.0
    kinds: dict[str, Kind] = {}
    sizes: ClusterSizes = ClusterSizes()
    moved: Part = 0.5

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: dict[str, Kind]) -> dict[str, Kind]:
        for name, kind in kinds.items():
            if name not in KINDS:
                raise ValueError(f"no such kind: {name!r}{nearest(name, list(KINDS))}")
            if kind.params and not KINDS[name]:
                raise ValueError(f"kind {name!r} has no parameter; leave 'params' out")
            if not kind.params and KINDS[name]:
                raise ValueError(f"kind {name!r} needs 'params', each the {KINDS[name]}")
        return kinds

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = sum(kind.share for kind in self.kinds.values())
        if self.share and abs(total - 1) > WEIGHT_TOLERANCE:
            raise ValueError(f"the shares of kinds add up to {total:.4f}, expected 1 (± {WEIGHT_TOLERANCE})")
        return self


class Template(RecipeModel):
    """Documents of one skeleton of `words` words, of which `fields` are filled in anew for each member."""

    share: Part
    words: Count = Field(240, ge=10)
    fields: Count = Field(4, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.fields > self.words // 2:
            raise ValueError(f"{self.fields} fields do not fit into {self.words} words; at most half of them can be")
        return self


class SharedHeader(RecipeModel):
    """A header of `words` words that a share of the base documents begins with, the same for all."""

    share: Part = 0.0
    words: Count = Field(60, ge=1)


class SynthRecipe(RecipeModel):
    """A whole synth recipe."""

    name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")
    sources: dict[str, Source] = Field(min_length=1)
    lengths: Lengths = Lengths()
    into: dict[str, Part] = Field(min_length=1)
    copies: Copies = Copies()
    templates: tuple[Template, ...] = ()
    shared_header: SharedHeader = SharedHeader()

    @field_validator("sources")
    @classmethod
    def _only_text(cls, sources: dict[str, Source]) -> dict[str, Source]:
        for name, source in sources.items():
            unused = sorted(source.model_fields_set - {"files", "text"})
            if unused:
                raise ValueError(f"source {name!r}: {unused} mean nothing here; only 'files' and 'text' are read")
        return sources

    @field_validator("into")
    @classmethod
    def _whole(cls, into: dict[str, float]) -> dict[str, float]:
        for name in into:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"source {name!r}: use letters, digits, '_' and '-' only")
        if abs(sum(into.values()) - 1) > WEIGHT_TOLERANCE:
            raise ValueError(f"the shares add up to {sum(into.values()):.4f}, expected 1 (± {WEIGHT_TOLERANCE})")
        return into

    @model_validator(mode="after")
    def _leaves_base_documents(self) -> Self:
        planted = self.copies.share + sum(template.share for template in self.templates)
        if planted >= 1:
            raise ValueError(f"copies and templates take {planted:.4f} of the documents; some must be left as base")
        return self


def read(path: str | Path) -> SynthRecipe:
    """The recipe in a YAML file. Raises RecipeError: no such file, an unknown key or kind, wrong shares."""
    return validate(SynthRecipe, read_yaml(Path(path)), str(path))
