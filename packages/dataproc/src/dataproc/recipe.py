"""The data recipe: what is built. Places and sizes are flags of the command.

`read(path)` is the one place where defaults become values; below it nothing is optional that need not be.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, StringConstraints, field_validator, model_validator

from dataproc.dedup.bands import Bands, optimal_bands, verified_bands
from dataproc.dedup.keep import PLAIN, Key
from manifest.errors import RecipeError
from manifest.fields import Count, RecipeModel, parse_count, validate

Scope = Literal["global", "local", "none"]
GateName = Literal["max_source_loss", "max_cluster", "min_precision"]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]

WEIGHT_TOLERANCE = 0.005  # published mixtures are rounded: SlimPajama-DC's columns add up to 100.1 %
UNREADABLE_SHARE = 0.01
RESERVED = ("global", "uri")  # the group of all sources; a key that no identity counts


class Clean(RecipeModel):
    """What happens to a record before it is a document. min_chars counts the characters of `clean(text)`."""

    ftfy: bool = True
    min_chars: int = Field(200, ge=0)
    filters: tuple[str, ...] = ()
    max_unreadable: float = Field(UNREADABLE_SHARE, ge=0, le=1)

    @field_validator("filters")
    @classmethod
    def _no_filters_yet(cls, filters: tuple[str, ...]) -> tuple[str, ...]:
        if filters:
            raise ValueError("this version has no quality filters; leave the list empty")
        return filters


class Source(RecipeModel):
    """One source. `files` is a glob (or several) relative to --raw, in which `*` stays within a directory and `**`
    goes into those below. Any `clean` key may be overridden here.
    """

    files: tuple[str, ...] = Field(min_length=1)
    text: str = "text"
    id: str | None = None
    ftfy: bool | None = None
    min_chars: int | None = Field(None, ge=0)
    max_unreadable: float | None = Field(None, ge=0, le=1)

    @field_validator("files", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("files")
    @classmethod
    def _below_raw(cls, files: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in files:
            if pattern.startswith("/") or ".." in pattern.split("/") or "://" in pattern:
                raise ValueError(f"{pattern!r} is not below --raw; write it relative to --raw, without '..'")
        return tuple(str(PurePosixPath(pattern)) for pattern in files)

    def cleaning(self, default: Clean) -> Clean:
        """The clean keys of this source over the recipe's."""
        own = {"ftfy": self.ftfy, "min_chars": self.min_chars, "max_unreadable": self.max_unreadable}
        return default.model_copy(update={key: value for key, value in own.items() if value is not None})


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


class TrainTokenizer(RecipeModel):
    """A byte-level BPE trained on the deduplicated documents, a sample of at most `sample_bytes` chosen by id hash."""

    vocab_size: Count = Field(ge=257)
    sample_bytes: Count = Field(64_000_000, gt=0)


class TokenizerRecipe(RecipeModel):
    """Either `train`, or `path` to a directory with a tokenizer.json (or to that file)."""

    train: TrainTokenizer | None = None
    path: str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.train is None) == (self.path is None):
            raise ValueError("give exactly one of 'train' and 'path'")
        return self


class PhaseRecipe(RecipeModel):
    """What a phase draws: weights × tokens, epochs per view, or tokens per view; the last two may be mixed."""

    weights: dict[str, Share] = {}
    epochs: dict[str, Share] = {}
    tokens: int | dict[str, int] | None = None

    @field_validator("tokens", mode="before")
    @classmethod
    def _counts(cls, value: object) -> object:
        return {k: parse_count(count) for k, count in value.items()} if isinstance(value, dict) else parse_count(value)

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        budgets = self.tokens if isinstance(self.tokens, dict) else {}
        if any(count < 0 for count in budgets.values()) or (isinstance(self.tokens, int) and self.tokens <= 0):
            raise ValueError(f"tokens: {self.tokens}; expected a number above 0, such as 200k or 4M")
        if self.weights:
            self._check_weights()
        elif isinstance(self.tokens, int):
            raise ValueError("'tokens' as one number needs 'weights'; or give tokens per source, {source: count}")
        twice = set(self.epochs) & set(budgets)
        if twice:
            raise ValueError(f"{sorted(twice)} have both epochs and tokens; give one of them")
        if not (self.weights or self.epochs or budgets):
            raise ValueError("the phase draws nothing; give weights and tokens, or epochs")
        return self

    def _check_weights(self) -> None:
        total = sum(self.weights.values())
        if abs(total - 1) > WEIGHT_TOLERANCE:
            raise ValueError(f"the weights add up to {total:.4f}, expected 1 (± {WEIGHT_TOLERANCE})")
        if not isinstance(self.tokens, int):
            raise ValueError("weights need 'tokens', the number of tokens of the phase, such as tokens: 4M")
        if self.epochs:
            raise ValueError(
                "a phase has either weights or epochs; put the sources of the other kind into its own phase"
            )

    @property
    def names(self) -> set[str]:
        """The views that the phase draws from."""
        return {*self.weights, *self.epochs, *(self.tokens if isinstance(self.tokens, dict) else ())}


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


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises RecipeError with the line that cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, _Loader)
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; expected a recipe in YAML") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


class _Loader(yaml.SafeLoader):
    """Refuses a key that comes twice; YAML would keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} comes twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)
