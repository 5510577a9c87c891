"""Where the tokenizer comes from."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from manifest.fields import Count, RecipeModel


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
