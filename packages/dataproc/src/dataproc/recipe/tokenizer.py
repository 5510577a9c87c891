"""Where the tokenizer comes from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, StringConstraints, field_validator, model_validator

from dataproc.vocab.scripts import code_of, names_of
from manifest.fields import Count, RecipeModel

Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]
SAMPLE_BYTES = 64_000_000


def _one_or_many(value: object) -> object:
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[Name, ...], BeforeValidator(_one_or_many)]


class TrainTokenizer(RecipeModel):
    """A byte-level BPE trained on the deduplicated documents, a sample of at most `sample_bytes` chosen by id hash."""

    vocab_size: Count = Field(ge=257)
    sample_bytes: Count = Field(SAMPLE_BYTES, gt=0)


class ExtendTokenizer(RecipeModel):
    """A BPE that exists, with `add` tokens more, learned from a sample of the sources in `on`.

    base: a directory with a tokenizer.json, that file, or a mixture, whose tokenizer is meant; `dataproc build --base`
    takes its place. script: Unicode's name of the script that new tokens are of, or several; else those with a tenth
    or more of the letters in the sample, the base's own apart.
    """

    base: str | None = None
    add: Count = Field(gt=0)
    on: Names = Field(min_length=1)
    script: Names = ()
    sample_bytes: Count = Field(SAMPLE_BYTES, gt=0)

    @field_validator("script")
    @classmethod
    def _of_unicode(cls, script: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names_of(sorted({code_of(name) for name in script})))


class ReplaceTokens(ExtendTokenizer):
    """The same, but the vocabulary keeps its size: new tokens take the ids of those that the build's text uses least
    among those that no other token is made from.
    """


class TokenizerRecipe(RecipeModel):
    """One of `train`, `extend`, `replace`, or `path` to a directory with a tokenizer.json (or to that file).

    special: a set of special tokens by name, or a list of them; they come after the vocabulary.
    """

    train: TrainTokenizer | None = None
    path: str | None = None
    extend: ExtendTokenizer | None = None
    replace: ReplaceTokens | None = None
    special: Literal["fim", "crystal"] | tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        ways = ("train", "path", "extend", "replace")
        given = [way for way in ways if getattr(self, way) is not None]
        if len(given) != 1:
            found = " and ".join(f"{way!r}" for way in given) or "none"
            raise ValueError(f"give exactly one of 'train', 'path', 'extend' and 'replace' (found {found})")
        if not isinstance(self.special, str) and len(set(self.special)) != len(self.special):
            raise ValueError(f"special names a token twice: {list(self.special)}")
        return self

    @property
    def grown(self) -> ExtendTokenizer | None:
        """What is asked of a base, if there is one."""
        return self.extend or self.replace

    @property
    def existing(self) -> tuple[str, str | None]:
        """The field that names a tokenizer that is there before the build, and where it is; None if there is none."""
        if self.grown is not None:
            return f"{'extend' if self.extend else 'replace'}.base", self.grown.base
        return "path", self.path

    def with_base(self, base: str) -> Self:
        """The same with another base, where one is extended."""
        assert self.grown is not None
        way = "extend" if self.extend else "replace"
        return self.model_copy(update={way: self.grown.model_copy(update={"base": base})})
