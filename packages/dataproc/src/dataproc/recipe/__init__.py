"""The data recipe: what is built. Places and sizes are flags of the command.

`read(path)` is the one place where defaults become values; below it nothing is optional that need not be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from dataproc.recipe.dedup import Dedup, Gates, Holdout
from dataproc.recipe.phases import PhaseRecipe
from dataproc.recipe.reading import read_yaml
from dataproc.recipe.sources import Clean, Source
from dataproc.recipe.tokenizer import TokenizerRecipe
from manifest.fields import Count, RecipeModel, validate

RESERVED = ("global", "uri")  # the group of all sources; a key that no identity counts


class DataRecipe(RecipeModel):
    """A whole data recipe. Sources are in the order that `keep: source_order` uses."""

    name: str = Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")
    sources: dict[str, Source] = Field(min_length=1)
    clean: Clean = Clean()
    dedup: Dedup = Dedup()
    holdout: Holdout = Holdout()
    tokenizer: TokenizerRecipe
    block_tokens: Count = Field(8192, ge=16)
    seed: int = Field(0, ge=0, lt=2**63)
    phases: dict[str, PhaseRecipe] = Field(min_length=1)

    @field_validator("sources")
    @classmethod
    def _plain_names(cls, sources: dict[str, Source]) -> dict[str, Source]:
        for name in sources:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"source {name!r}: use letters, digits, '_' and '-' only")
            if name in RESERVED:
                raise ValueError(f"source {name!r}: the name has a meaning of its own here; take another one")
        return sources

    @model_validator(mode="after")
    def _phases_know_their_sources(self) -> Self:
        for phase, recipe in self.phases.items():
            unknown = sorted(recipe.names - set(self.sources))
            if unknown:
                raise ValueError(f"phase {phase!r} draws from {unknown}; the recipe has {sorted(self.sources)}")
        return self

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

    def streams(self) -> Iterator[str]:
        """The sources that some phase draws from, in recipe order."""
        used = set().union(*(phase.names for phase in self.phases.values()))
        return (name for name in self.sources if name in used)


def read(path: str | Path, *, override: Mapping[str, str] | None = None) -> DataRecipe:
    """The recipe in a YAML file. override: gate → reason, on top of those in the file.

    Raises RecipeError: no such file, not YAML, an unknown key, a missing source, weights that do not add up, …
    """
    recipe = validate(DataRecipe, read_yaml(Path(path)), str(path))
    if not override:
        return recipe
    gates = recipe.dedup.gates.model_dump()
    gates["override"] = {**gates["override"], **override}
    dedup = recipe.dedup.model_copy(update={"gates": validate(Gates, gates, "--override")})
    return recipe.model_copy(update={"dedup": dedup})
