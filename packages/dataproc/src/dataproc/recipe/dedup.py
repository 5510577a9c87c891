"""How near-duplicates are removed, which gates stop a build, and what is held out."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from dataproc.dedup.bands import Bands, optimal_bands, verified_bands
from dataproc.dedup.keep_keys import PLAIN, Key
from manifest.fields import RecipeModel

Scope = Literal["global", "local", "none"]
GateName = Literal["max_source_loss", "max_cluster", "min_precision", "max_epochs"]


class Gates(RecipeModel):
    """What stops a build before it publishes. Shares are of a source's documents; min_precision is of a sample of
    documents in clusters. override: gate → the reason why it does not hold here, which stands in the mixture.
    """

    max_source_loss: float = Field(0.95, gt=0, le=1)
    max_cluster: int = Field(100_000, gt=0)
    min_precision: float = Field(0.99, ge=0, le=1)
    override: dict[GateName, Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]] = {}


SLIMPAJAMA: dict[str, Any] = {
    "verify": "none",
    "bands": (9, 13),
    "keep": ("source_order", "id"),
    "gates": {"min_precision": 0.0},
}
"""What preset slimpajama says where the recipe says nothing. Scope, shingles, permutations are the defaults anyway."""


class Dedup(RecipeModel):
    """Near-duplicate removal; docs/dedup.md says what each key does.

    preset slimpajama: as the original did it. A shared band of 9 × 13 is enough; documents that are too short take part
    and are dropped afterwards; what is held out is chosen from what is left, and its exact copies leave training.
    """

    preset: Literal["exact", "slimpajama"] = "exact"
    scope: Scope = "global"
    unit: Literal["char", "word"] = "char"
    ngram: int = Field(13, ge=1, le=64)
    permutations: int = Field(128, ge=16, le=1024)
    threshold: float = Field(0.8, gt=0, lt=1)
    verify: Literal["exact", "none"] = "exact"
    bands: tuple[int, int] | None = None
    keep: tuple[Key, ...] = PLAIN
    gates: Gates = Gates()

    @model_validator(mode="before")
    @classmethod
    def _presets(cls, fields: object) -> object:
        if not isinstance(fields, dict):
            return fields
        words = {"ngram": 5} if fields.get("unit") == "word" else {}
        return (SLIMPAJAMA if fields.get("preset") == "slimpajama" else {}) | words | fields

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if self.banding.width > self.permutations:
            raise ValueError(f"bands [bands, rows] {self.bands} need bands × rows ≤ {self.permutations} permutations")
        if not self.keep or self.keep[-1] != "id" or len({str(key) for key in self.keep}) != len(self.keep):
            raise ValueError("keep must name each key once and end with 'id', so that it is a total order")
        return self

    @property
    def banding(self) -> Bands:
        """The bands in use. Raises ValueError if there are none for the threshold."""
        if self.bands:
            return Bands(*self.bands)
        choose = verified_bands if self.verify == "exact" else optimal_bands
        return choose(self.threshold, self.permutations)


class Holdout(RecipeModel):
    """The held-out share, and the largest share of a source's documents that it may cost.

    by cluster: whole clusters, before dedup, the same for every scope. by position: documents that dedup left, the
    first in order of a hash; training loses their exact copies (SHA-256 of the text). Default: as the preset did it.
    """

    by: Literal["cluster", "position"] | None = None
    fraction: float = Field(0.0017, ge=0, lt=1)
    max_share: float = Field(0.05, ge=0, le=1)
