"""The shape of a decoder: every number that is needed to build it, and nothing that is needed to train it.

It is resolved once (recipe + size + vocabulary), written into run.json and into every checkpoint, and enough to load
one. No torch here, so that `trainer plan` answers at once.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from manifest.record import Model

VOCABULARY_MULTIPLE = 64
"""Rows of the embedding are rounded up to a multiple of this. The rows beyond the vocabulary are never a target."""


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


class Architecture(Model):
    """What kind of decoder; the same at every size. `rotary_share` is the part of each head that RoPE rotates."""

    position: Literal["alibi", "rope"]
    feedforward: Literal["swiglu", "gelu"]
    norm: Literal["layernorm", "rmsnorm"]
    bias: bool
    tied: bool
    norm_eps: float = Field(default=1e-5, gt=0)
    rotary_share: float = Field(default=1.0, gt=0, le=1)
    rotary_base: float = Field(default=10000.0, gt=0)
    init_std: float = Field(default=0.02, gt=0)
    mup: Mup | None = None


class Shape(Model):
    """A decoder, resolved. Widths in units, vocabularies in tokens."""

    layers: int = Field(gt=0)
    width: int = Field(gt=0)
    heads: int = Field(gt=0)
    kv_heads: int = Field(gt=0)
    head_dim: int = Field(gt=0)
    filter: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    architecture: Architecture

    @property
    def padded_vocab(self) -> int:
        """Rows of the embedding."""
        return -(-self.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE

    @property
    def rotary_dims(self) -> int:
        """Dimensions of each head that RoPE rotates: an even number."""
        return int(self.head_dim * self.architecture.rotary_share) // 2 * 2

    @property
    def embedding_parameters(self) -> int:
        tables = 1 if self.architecture.tied else 2
        return tables * self.padded_vocab * self.width

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
