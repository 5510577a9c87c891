"""What every part of a build asks of its recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataproc.dedup.group import Matching
from dataproc.dedup.shingles import Shingling
from dataproc.gates import Gatekeeper
from dataproc.recipe import DataRecipe
from dataproc.stage import Build, Planned, shard_files
from manifest.artifact import Opened

Item = Opened | Planned
Artifacts = dict[str, Item]
"""What a stage made of each source, or of each group of sources."""


@dataclass(frozen=True)
class Context:
    """A recipe, where it is built, and the gates that it passes."""

    recipe: DataRecipe
    build: Build
    gates: Gatekeeper

    @property
    def shingling(self) -> Shingling:
        return Shingling(self.recipe.dedup.unit, self.recipe.dedup.ngram)

    @property
    def shingles(self) -> dict[str, Any]:
        """The shingling in a stage's config."""
        return {"unit": self.recipe.dedup.unit, "ngram": self.recipe.dedup.ngram}

    @property
    def matching(self) -> Matching:
        dedup = self.recipe.dedup
        verified = dedup.verify == "exact"
        return Matching(self.shingling, dedup.permutations, dedup.banding, dedup.threshold, verified)

    @property
    def keep(self) -> list[Any]:
        """The keep order in a stage's config."""
        return [key if isinstance(key, str) else key.name for key in self.recipe.dedup.keep]

    def min_chars_last(self, name: str) -> int:
        """What a source's documents must have where short ones take part in dedup first; else 0."""
        return self.recipe.sources[name].cleaning(self.recipe.clean).min_chars if self.recipe.drops_short_last else 0

    def groups(self) -> dict[str, list[str]]:
        """The groups in which near-duplicates are removed: name → sources."""
        sources = list(self.recipe.sources)
        groups = {"global": {"global": sources}, "local": {name: [name] for name in sources}, "none": {}}
        return groups[self.recipe.dedup.scope]


def shards_of(item: Item, stem: str) -> list[Path]:
    """The shards of an artifact that is there, whose names begin with `stem`."""
    assert isinstance(item, Opened)
    return shard_files(item, stem)
