"""What an index holds its documents against: fixed when it is made, by a data recipe.

Documents that were signed in another way, or a recipe that asks for something else, are refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from dataproc.dedup.bands import Bands
from dataproc.dedup.group import Matching
from dataproc.dedup.keep_keys import PLAIN
from dataproc.dedup.shingles import HASH, Shingling
from dataproc.dedup.sign import SCHEME
from dataproc.recipe import DataRecipe
from manifest.errors import RecipeError, UnknownVersion
from manifest.record import Model


class Settings(Model):
    """What decides which documents are near-duplicates, and which of them survives."""

    name: str
    unit: Literal["char", "word"]
    ngram: int
    permutations: int
    scheme: str
    hash: str
    threshold: float
    bands: tuple[int, int]
    keep: tuple[Literal["source_order", "longest", "id"], ...]
    sources: tuple[str, ...]

    @classmethod
    def of(cls, recipe: DataRecipe) -> Settings:
        """Raises RecipeError for a recipe that clusters in another way than an index does."""
        dedup = recipe.dedup
        if dedup.scope != "global" or dedup.verify != "exact":
            raise RecipeError(
                f"recipe {recipe.name!r}: dedup.scope is {dedup.scope!r} and dedup.verify {dedup.verify!r}; an index "
                "is global and exact. Give it a recipe with dedup: {scope: global, verify: exact}"
            )
        if not all(key in PLAIN for key in dedup.keep):
            raise RecipeError(
                f"recipe {recipe.name!r}: dedup.keep ranks by a field of the metadata, which an index does not hold; "
                f"give it a recipe with keep keys of {', '.join(PLAIN)}"
            )
        return cls(
            name=recipe.name,
            **dedup.model_dump(include={"unit", "ngram", "permutations", "threshold", "keep"}),
            scheme=SCHEME,
            hash=HASH,
            bands=(dedup.banding.count, dedup.banding.rows),
            sources=tuple(recipe.sources),
        )

    @classmethod
    def read(cls, config: Mapping[str, Any], where: str) -> Settings:
        """Those of a published index. Raises UnknownVersion if its signatures are not made in this way any more."""
        try:
            settings = cls.model_validate(config)
        except ValidationError as error:
            raise UnknownVersion(f"{where}: its settings cannot be read ({error}); build the index again") from error
        if (settings.scheme, settings.hash) != (SCHEME, HASH):
            raise UnknownVersion(
                f"{where} holds signatures {settings.scheme} over {settings.hash}; this Winnow makes {SCHEME} over "
                f"{HASH}. Use the Winnow that made it, or build the index again"
            )
        return settings

    @property
    def shingling(self) -> Shingling:
        return Shingling(self.unit, self.ngram)

    @property
    def matching(self) -> Matching:
        return Matching(self.shingling, self.permutations, Bands(*self.bands), self.threshold, verified=True)

    @property
    def signing(self) -> dict[str, Any]:
        """What decides a signature, as the config of a signatures artifact has it."""
        return self.model_dump(include={"unit", "ngram", "permutations", "scheme", "hash"})

    def require(self, recipe: DataRecipe, where: str) -> None:
        """Raises RecipeError if a recipe asks for something else than these settings."""
        asked, has = Settings.of(recipe).model_dump(mode="json"), self.model_dump(mode="json")
        other = [key for key in has if key != "name" and asked[key] != has[key]]
        if other:
            listed = ", ".join(f"{key} {asked[key]} (the index: {has[key]})" for key in other)
            raise RecipeError(
                f"recipe {recipe.name!r} asks for {listed}; {where} cannot be changed. Correct the recipe, or make "
                "another index"
            )
