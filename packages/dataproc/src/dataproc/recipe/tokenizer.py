"""Where the tokenizer comes from."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from manifest.fields import Count, RecipeModel

Name = Annotated[str, StringConstraints(min_length=1, max_length=100)]


class TrainTokenizer(RecipeModel):
    """A byte-level BPE trained on the deduplicated documents, a sample of at most `sample_bytes` chosen by id hash."""

    vocab_size: Count = Field(ge=257)
    sample_bytes: Count = Field(64_000_000, gt=0)


class TokenizerRecipe(RecipeModel):
    """Either `train`, or `path` to a directory with a tokenizer.json (or to that file).

    special: a set of special tokens by name, or a list of them; they come after the vocabulary.
    """

    train: TrainTokenizer | None = None
    path: str | None = None
    special: Literal["fim", "crystal"] | tuple[Name, ...] = ()

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.train is None) == (self.path is None):
            raise ValueError("give exactly one of 'train' and 'path'")
        if not isinstance(self.special, str) and len(set(self.special)) != len(self.special):
            raise ValueError(f"special names a token twice: {list(self.special)}")
        return self
