"""One decoder for every recipe: tokens (B, T) → logits (B, T, V). Pre-norm, residual, and muP's multipliers.

Shapes: B windows, T positions, C width, V rows of the embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainer.model import mup
from trainer.model.attention import Attention, Positions
from trainer.model.feedforward import feedforward
from trainer.model.norm import norm
from trainer.model.positions import alibi_bias, rotary_tables, seen
from trainer.model.shape import Shape


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x))."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = norm(shape)
        self.attention = Attention(shape)
        self.feedforward_norm = norm(shape)
        self.feedforward = feedforward(shape)

    def forward(self, x_BTC: Tensor, positions: Positions) -> Tensor:
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), positions)
        out_BTC: Tensor = x_BTC + self.feedforward(self.feedforward_norm(x_BTC))
        return out_BTC


class Decoder(nn.Module):
    """A language model of the given shape. Its parameters are uninitialised until `mup.initialise` or a checkpoint.

    recompute: keep only the layers' inputs for the backward pass and compute the rest again (activation checkpointing).
    """

    def __init__(self, shape: Shape, *, recompute: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.recompute = recompute
        self.embedding = nn.Embedding(shape.padded_vocab, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.final_norm = norm(shape)
        if not shape.architecture.tied:
            self.unembedding = nn.Linear(shape.width, shape.padded_vocab, bias=False)
        self._positions: tuple[int, torch.device, Positions] | None = None

    def forward(self, tokens_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """The logits. documents_BT: the document of each token within its window; a token sees no other's."""
        positions = self._positions_of(tokens_BT.shape[1], tokens_BT.device)
        if documents_BT is not None:
            positions = positions.within(seen(documents_BT))
        x_BTC = self.embedding(tokens_BT) * mup.embedding_multiplier(self.shape)
        for layer in self.layers:
            if self.recompute and self.training:
                x_BTC = checkpoint(layer, x_BTC, positions, use_reentrant=False)
            else:
                x_BTC = layer(x_BTC, positions)
        # Scaling the states is scaling the logits, for C instead of V numbers per position.
        x_BTC = self.final_norm(x_BTC) * mup.logits_multiplier(self.shape)
        return functional.linear(x_BTC, self.unembedding_weight)

    @property
    def unembedding_weight(self) -> Tensor:
        return self.embedding.weight if self.shape.architecture.tied else self.unembedding.weight

    def _positions_of(self, length: int, device: torch.device) -> Positions:
        """The positions of a window; kept, for one window is as long as the next."""
        kept = self._positions
        if kept is None or kept[:2] != (length, device):
            kept = self._positions = (length, device, self._make_positions(length, device))
        return kept[2]

    def _make_positions(self, length: int, device: torch.device) -> Positions:
        shape = self.shape
        if shape.architecture.position == "alibi":
            return Positions(bias=alibi_bias(shape.heads, length, device))
        return Positions(rotary=rotary_tables(shape.rotary_dims, shape.architecture.rotary_base, length, device))


def build(shape: Shape, *, seed: int, recompute: bool = False) -> Decoder:
    """A decoder on the CPU, initialised from a seed."""
    with torch.device("meta"):
        decoder = Decoder(shape, recompute=recompute)
    decoder.to_empty(device="cpu")
    mup.initialise(decoder, shape, seed)
    return decoder
