"""One decoder for every recipe: tokens (B, T) → logits (B, T, V). Pre-norm, residual, and muP's multipliers.

Shapes: B windows, T positions, C width, V rows of the embedding.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from manifest.errors import InputError
from trainer.model import flex, mup
from trainer.model.adapters import logits
from trainer.model.attention import Attention, Positions
from trainer.model.cache import Cache, LayerCache
from trainer.model.feedforward import feedforward
from trainer.model.norm import norm
from trainer.model.positions import alibi_bias, causal, places_within, rotary_tables, seen, seen_from
from trainer.model.shape import Shape


class Layer(nn.Module):
    """x + attention(norm(x)), then x + feedforward(norm(x))."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.attention_norm = norm(shape)
        self.attention = Attention(shape)
        self.feedforward_norm = norm(shape)
        self.feedforward = feedforward(shape)

    def forward(self, x_BTC: Tensor, positions: Positions, cache: LayerCache | None = None) -> Tensor:
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), positions, cache)
        out_BTC: Tensor = x_BTC + self.feedforward(self.feedforward_norm(x_BTC))
        return out_BTC


class Decoder(nn.Module):
    """A language model of the given shape. Its parameters are uninitialised until `mup.initialise` or a checkpoint.

    recompute: keep only the layers' inputs for the backward pass and compute the rest again (activation checkpointing).
    attention: torch's SDPA with a bias, or flex attention without one (`flex.py`); to rounding, the same numbers.
    interpolation: ALiBi's, the shape's unless it is set to another; it changes no weight.
    """

    def __init__(self, shape: Shape, *, recompute: bool = False, attention: Literal["sdpa", "flex"] = "sdpa") -> None:
        super().__init__()
        self.shape = shape
        self.recompute = recompute
        self.flex = attention == "flex"
        self.interpolation = shape.architecture.interpolation
        self.embedding = nn.Embedding(shape.padded_vocab, shape.width)
        if shape.architecture.max_positions is not None:
            self.position_embedding = nn.Embedding(shape.architecture.max_positions, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.final_norm = norm(shape)
        if not shape.architecture.tied:
            self.unembedding = nn.Linear(shape.width, shape.padded_vocab, bias=False)
        self._positions: tuple[tuple[object, ...], Positions] | None = None

    def forward(self, tokens_BT: Tensor, documents_BT: Tensor | None = None, *, cache: Cache | None = None) -> Tensor:
        """The logits. documents_BT: the document of each token within its window; a token sees no other's.

        cache: what has been read of each row before these tokens, which are added to it; not together with documents.
        Raises InputError if the rows are longer than a decoder that learns its positions knows.
        """
        assert documents_BT is None or cache is None, "a cache holds one document per row"
        positions = self._positions_of(tokens_BT, documents_BT, cache)
        x_BTC = self._embed(tokens_BT, documents_BT, cache) * mup.embedding_multiplier(self.shape)
        for index, layer in enumerate(self.layers):
            if self.recompute and self.training:
                x_BTC = checkpoint(layer, x_BTC, positions, use_reentrant=False)
            else:
                x_BTC = layer(x_BTC, positions, None if cache is None else cache.layers[index])
        if cache is not None:
            cache.length += tokens_BT.shape[1]
        # Scaling the states is scaling the logits, for C instead of V numbers per position.
        x_BTC = self.final_norm(x_BTC) * mup.logits_multiplier(self.shape)
        return logits(x_BTC, self.embedding if self.shape.architecture.tied else self.unembedding)

    def _embed(self, tokens_BT: Tensor, documents_BT: Tensor | None, cache: Cache | None) -> Tensor:
        x_BTC: Tensor = self.embedding(tokens_BT)
        limit = self.shape.architecture.max_positions
        if limit is None:
            return x_BTC
        places = self._places(tokens_BT, documents_BT, cache)
        if (0 if cache is None else cache.length) + tokens_BT.shape[1] > limit and int(places.max()) >= limit:
            raise InputError(
                f"{int(places.max()) + 1} tokens in a row, and the model has learned {limit} positions; give shorter "
                "windows or prompts"
            )
        placed_BTC: Tensor = x_BTC + self.position_embedding(places)
        return placed_BTC

    @staticmethod
    def _places(tokens_BT: Tensor, documents_BT: Tensor | None, cache: Cache | None) -> Tensor:
        """(T,) or (B, T): the learned position of each token, from the start of its row or document."""
        if documents_BT is not None:
            return places_within(documents_BT)
        first = 0 if cache is None else cache.length
        places_T = torch.arange(first, first + tokens_BT.shape[1], device=tokens_BT.device)
        if cache is None or cache.starts_B is None:
            return places_T
        return (places_T - cache.starts_B[:, None]).clamp(min=0)

    def _positions_of(self, tokens_BT: Tensor, documents_BT: Tensor | None, cache: Cache | None) -> Positions:
        first = 0 if cache is None else cache.length
        length = first + tokens_BT.shape[1]
        if self.flex and cache is None:
            return self._flex_positions(tokens_BT, documents_BT)
        positions = self._kept(first, length, tokens_BT.device)
        if documents_BT is not None:
            return positions.within(seen(documents_BT))
        if cache is not None and cache.starts_B is not None:
            return positions.within(seen_from(cache.starts_B, length, first=first))
        if 0 < first < length - 1 and positions.bias is None:
            return positions.within(causal(length, tokens_BT.device, first=first)[None, None])
        return positions

    def _kept(self, first: int, length: int, device: torch.device) -> Positions:
        """The positions of a window; kept, for one window is as long as the next."""
        key = (first, length, device, self.interpolation)
        if self._positions is None or self._positions[0] != key:
            with torch.inference_mode(False):  # a backward pass may use them later
                self._positions = (key, self._make_positions(first, length, device))
        return self._positions[1]

    def _make_positions(self, first: int, length: int, device: torch.device) -> Positions:
        kind = self.shape.architecture.position
        if kind == "alibi":
            bias = alibi_bias(self.shape.heads, length, device, first=first, scale=self._scale(length))
            return Positions(first, bias=bias)
        return Positions(first, rotary=self._rotary(length, device, first) if kind == "rope" else None)

    def _flex_positions(self, tokens_BT: Tensor, documents_BT: Tensor | None) -> Positions:
        length, device, kind = tokens_BT.shape[1], tokens_BT.device, self.shape.architecture.position
        heads = self.shape.heads if kind == "alibi" else 0
        made = flex.kernel(length, device, heads=heads, scale=self._scale(length), documents_BT=documents_BT)
        return Positions(rotary=self._rotary(length, device) if kind == "rope" else None, kernel=made)

    def _rotary(self, length: int, device: torch.device, first: int = 0) -> tuple[Tensor, Tensor]:
        shape = self.shape
        return rotary_tables(shape.rotary_dims, shape.architecture.rotary_base, length, device, first=first)

    def _scale(self, length: int) -> float:
        return 1.0 if self.interpolation is None else self.interpolation.scale(length)


def build(shape: Shape, *, seed: int, recompute: bool = False, attention: Literal["sdpa", "flex"] = "sdpa") -> Decoder:
    """A decoder on the CPU, initialised from a seed."""
    with torch.device("meta"):
        decoder = Decoder(shape, recompute=recompute, attention=attention)
    decoder.to_empty(device="cpu")
    mup.initialise(decoder, shape, seed)
    return decoder
