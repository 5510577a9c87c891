"""`vocabulary:` of a train recipe: how the rows of new tokens begin. No torch here, as in all of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from manifest.fields import parse_count
from manifest.record import Model
from trainer.model.shape import VOCABULARY_MULTIPLE

MIXTURE = "mixture"
TOP_K = 10

Start = Literal["mean_of_pieces", "mean_of_all", "similarity", "projection", "random"]


class VocabularyRecipe(Model):
    """How rows begin whose tokens the mixture's tokenizer has and the base's has not; in input embeddings and output
    head alike.

    new_rows: `mean_of_pieces` of the tokens that the base cut them into; `mean_of_all` of its rows; `similarity`: the
    mean of the top_k tokens that are most like them in auxiliary embeddings, weighted by how alike they are;
    `projection` of a donor's rows by the linear map that fits best on the tokens that both have; `random` as in a
    fresh decoder.
    donor: a checkpoint or a Hugging Face directory. auxiliary: likewise, or `mixture` for which tokens stand near each
    other in it. pad_to: rows are filled up to a multiple of it.
    """

    new_rows: Start = "mean_of_pieces"
    donor: Annotated[str, Field(min_length=1)] | None = None
    auxiliary: Annotated[str, Field(min_length=1)] | None = None
    top_k: int | None = Field(default=None, gt=0)
    pad_to: Annotated[int, BeforeValidator(parse_count), Field(gt=0, le=1 << 16)] = VOCABULARY_MULTIPLE

    @model_validator(mode="after")
    def _of_one_start(self) -> Self:
        if (self.new_rows == "projection") != (self.donor is not None):
            raise ValueError(
                "`new_rows: projection` needs a donor, whose rows are projected, and no other start has one"
            )
        if self.new_rows != "similarity" and (self.auxiliary is not None or self.top_k is not None):
            raise ValueError("auxiliary and top_k are of `new_rows: similarity` alone; remove them")
        return self

    @property
    def other_model(self) -> str | None:
        """Where another model lies that the rows are made of, besides the base."""
        return self.auxiliary if self.auxiliary not in (None, MIXTURE) else self.donor

    @property
    def reads_mixture(self) -> bool:
        """Whether the rows depend on the mixture's text."""
        return self.new_rows == "similarity" and self.auxiliary in (None, MIXTURE)

    @property
    def neighbours(self) -> int:
        """Of each new token, with `similarity`."""
        return self.top_k or TOP_K

    def with_other_model(self, place: str) -> Self:
        """The same, with the other model at another place."""
        return self.model_copy(update={"donor" if self.donor is not None else "auxiliary": place})

    def identified(self) -> dict[str, Any]:
        """All but where another model lies."""
        rest = {"top_k": self.neighbours, "mixture": self.reads_mixture} if self.new_rows == "similarity" else {}
        return {"new_rows": self.new_rows, "pad_to": self.pad_to, **rest}
