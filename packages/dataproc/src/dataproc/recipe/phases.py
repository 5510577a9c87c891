"""What a phase draws from which views."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from manifest.fields import RecipeModel, parse_count

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
WEIGHT_TOLERANCE = 0.005  # published mixtures are rounded: SlimPajama-DC's columns add up to 100.1 %


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
