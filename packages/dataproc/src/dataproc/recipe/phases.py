"""What a phase draws from which views.

A phase has a total (`tokens: 4M`) that is shared out, or fixed parts (`epochs`, `tokens: {view: count}`), or both: then
the fixed parts come first and what is left of the total is shared.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from manifest.fields import RecipeModel, parse_count

Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
WEIGHT_TOLERANCE = 0.005  # published mixtures are rounded: SlimPajama-DC's columns add up to 100.1 %


class UniMax(RecipeModel):
    """Every view gets the same number of tokens, but none more than `max_epochs` of itself (Chung et al., 2023)."""

    max_epochs: float = Field(gt=0, allow_inf_nan=False)


class PhaseRecipe(RecipeModel):
    """What a phase draws.

    tokens: the total, or a count per view. epochs: per view. The total is shared by `weights`; or by `temperature` τ,
    in proportion to blocks^(1/τ) (1: as they come, higher: flatter); or by `unimax`. of: the views that temperature and
    unimax share among, by default every source.
    """

    weights: dict[str, Share] = {}
    temperature: float | None = Field(None, ge=1, allow_inf_nan=False)
    unimax: UniMax | None = None
    of: tuple[str, ...] = ()
    epochs: dict[str, Share] = {}
    budgets: dict[str, int] = {}
    tokens: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _budgets(cls, fields: object) -> object:
        """`tokens: {view: count}` is another way to write `budgets`."""
        if not isinstance(fields, dict) or not isinstance(fields.get("tokens"), dict):
            return fields
        if fields.get("budgets"):
            raise ValueError("give tokens per view once: as 'tokens: {view: count}' or as 'budgets'")
        return {**fields, "tokens": None, "budgets": fields["tokens"]}

    @field_validator("tokens", mode="before")
    @classmethod
    def _count(cls, value: object) -> object:
        return parse_count(value)

    @field_validator("budgets", mode="before")
    @classmethod
    def _counts(cls, value: object) -> object:
        return {k: parse_count(count) for k, count in value.items()} if isinstance(value, dict) else value

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        if any(count < 0 for count in self.budgets.values()) or (self.tokens is not None and self.tokens <= 0):
            found = self.budgets or self.tokens
            raise ValueError(f"tokens: {found}; expected a number above 0, such as 200k or 4M")
        ways = [name for name in ("weights", "temperature", "unimax") if getattr(self, name)]
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(ways)} each share out the tokens of the phase; keep one")
        if ways and self.tokens is None:
            needs = "weights need" if self.weights else f"{ways[0]} needs"
            raise ValueError(f"{needs} 'tokens', the number of tokens of the phase, such as tokens: 4M")
        if self.tokens is not None and not ways:
            raise ValueError(
                "'tokens' as one number needs 'weights', 'temperature' or 'unimax' to share it out; or give tokens per "
                "view, {view: count}"
            )
        if self.of and not (self.temperature or self.unimax):
            raise ValueError("'of' names the views of temperature and unimax; weights name their own")
        self._check_weights()
        self._check_names()
        return self

    def _check_weights(self) -> None:
        total = sum(self.weights.values())
        if self.weights and abs(total - 1) > WEIGHT_TOLERANCE:
            raise ValueError(f"the weights add up to {total:.4f}, expected 1 (± {WEIGHT_TOLERANCE})")

    def _check_names(self) -> None:
        fixed = set(self.epochs) & set(self.budgets)
        if fixed:
            raise ValueError(f"{sorted(fixed)} have both epochs and tokens; give one of them")
        twice = ({*self.epochs, *self.budgets}) & {*self.weights, *self.of}
        if twice:
            raise ValueError(f"{sorted(twice)} have a fixed part and a share of the rest; give one of them")
        if not (self.tokens or self.epochs or self.budgets):
            raise ValueError("the phase draws nothing; give weights and tokens, or epochs")

    def names(self, sources: tuple[str, ...]) -> set[str]:
        """The views that the phase draws from, in a recipe of these sources."""
        return {*self.epochs, *self.budgets, *self.weights, *self.shared_by_size(sources)}

    def shared_by_size(self, sources: tuple[str, ...]) -> tuple[str, ...]:
        """The views that temperature or unimax share the tokens among."""
        if not (self.temperature or self.unimax):
            return ()
        return self.of or tuple(name for name in sources if name not in self.epochs and name not in self.budgets)
