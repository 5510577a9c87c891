"""The shape of a decoder: every number that is needed to build it, and nothing that is needed to train it.

It is resolved once (recipe + size + vocabulary), written into run.json and into every checkpoint, and enough to load
one. No torch here, so that `trainer plan` answers at once.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from manifest.record import Model

VOCABULARY_MULTIPLE = 64
"""Rows of the embedding are rounded up to a multiple of this, if nothing else is asked for. The rows beyond the
vocabulary are never a target.
"""


class Mup(Model):
    """Maximal update parametrisation: the constants of the base model (Yang et al., 2022; BTLM, Dey et al., 2023).

    embedding multiplies the embedding's output; logits multiplies the logits, over the width multiplier.
    """

    base_width: float = Field(gt=0)
    base_filter: float = Field(gt=0)
    embedding: float = Field(gt=0)
    logits: float = Field(gt=0)
    init_std: float = Field(gt=0)
    attention: Literal["1/d", "1/sqrt(d)"] = "1/d"


class Interpolation(Model):
    """ALiBi beyond the length that was trained: slopes are divided by a scale (Al-Khateeb et al., 2023).

    factor: the scale, for a model that goes on training with it. trained_length: the scale is length / trained_length
    for what is longer than that, and 1 else, for a model that was trained without.
    """

    factor: float | None = Field(default=None, ge=1, allow_inf_nan=False)
    trained_length: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.factor is None) == (self.trained_length is None):
            raise ValueError("needs either factor or trained_length")
        return self

    def scale(self, length: int) -> float:
        """What the slopes of a sequence of `length` tokens are divided by."""
        if self.factor is not None:
            return self.factor
        assert self.trained_length is not None
        return max(1.0, length / self.trained_length)


def _is_none(value: object) -> bool:
    return value is None


def _is_usual(multiple: object) -> bool:
    return multiple == VOCABULARY_MULTIPLE


class Architecture(Model):
    """What kind of decoder; the same at every size. `rotary_share` is the part of each head that RoPE rotates.

    max_positions: rows of the table of a decoder that learns its positions. What is None is left out of identities, so
    runs of before these fields keep theirs.
    """

    position: Literal["alibi", "rope", "learned"]
    feedforward: Literal["swiglu", "gelu"]
    norm: Literal["layernorm", "rmsnorm"]
    bias: bool
    tied: bool
    norm_eps: float = Field(default=1e-5, gt=0)
    rotary_share: float = Field(default=1.0, gt=0, le=1)
    rotary_base: float = Field(default=10000.0, gt=0)
    init_std: float = Field(default=0.02, gt=0)
    mup: Mup | None = None
    max_positions: int | None = Field(default=None, gt=0, exclude_if=_is_none)
    interpolation: Interpolation | None = Field(default=None, exclude_if=_is_none)

    @model_validator(mode="after")
    def _fields_of_the_position(self) -> Self:
        if (self.position == "learned") != (self.max_positions is not None):
            raise ValueError("`position: learned` needs max_positions, and no other position has one")
        if self.interpolation is not None and self.position != "alibi":
            raise ValueError(f"interpolation is of ALiBi's slopes; found `position: {self.position}`")
        return self


class Shape(Model):
    """A decoder, resolved. Widths in units, vocabularies in tokens. vocab_multiple: what the rows of the embedding are
    padded to; the usual one is left out of identities.
    """

    layers: int = Field(gt=0)
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    filter: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    architecture: Architecture
    vocab_multiple: int = Field(default=VOCABULARY_MULTIPLE, gt=0, exclude_if=_is_usual)

    @property
    def padded_vocab(self) -> int:
        """Rows of the embedding."""
        return -(-self.vocab_size // self.vocab_multiple) * self.vocab_multiple

    @property
    def rotary_dims(self) -> int:
        """Dimensions of each head that RoPE rotates: an even number."""
        return int(self.head_dim * self.architecture.rotary_share) // 2 * 2

    @property
    def embedding_parameters(self) -> int:
        tables = 1 if self.architecture.tied else 2
        return (tables * self.padded_vocab + (self.architecture.max_positions or 0)) * self.width

    @property
    def layer_parameters(self) -> int:
        """Parameters of one layer: attention, feed-forward, two norms."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        into = 2 if self.architecture.feedforward == "swiglu" else 1
        matrices = self.width * (2 * queries + 2 * keys) + (into + 1) * self.width * self.filter
        biases = queries + 2 * keys + self.width + into * self.filter + self.width
        return matrices + (biases if self.architecture.bias else 0) + 2 * self.norm_parameters

    @property
    def norm_parameters(self) -> int:
        return self.width * (2 if self.architecture.norm == "layernorm" else 1)

    @property
    def parameters(self) -> int:
        """All parameters, each once."""
        return self.embedding_parameters + self.layers * self.layer_parameters + self.norm_parameters

    def flops_per_token(self, seq_len: int) -> float:
        """Training FLOPs per token: 6 per parameter of a matrix product, and 6 · layers · heads · head_dim · seq_len.

        The second term is attention's two products, forward and backward, over the causal half of the scores
        (12 · d · T for the full square). Looking up in the embedding costs nothing; the product with the unembedding
        does.
        """
        products = self.layers * self.layer_parameters + self.padded_vocab * self.width
        return 6.0 * products + 6.0 * self.layers * self.heads * self.head_dim * seq_len
