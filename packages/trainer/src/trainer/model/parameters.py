"""The parameters of a decoder, by name, without torch: what recipes choose from, and what plans count."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from trainer.model.shape import Shape

TABLES = ("embedding.weight", "unembedding.weight")
"""The matrices with a row per token."""

Sizes = Mapping[str, tuple[int, ...]]
"""The shape of each parameter, by name."""


def parameter_sizes(shape: Shape) -> dict[str, tuple[int, ...]]:
    """The parameters of `Decoder(shape)`, in its order."""
    return dict(_parameters(shape))


def count(sizes: Sizes) -> int:
    """Numbers in some parameters."""
    return sum(math.prod(size) for size in sizes.values())


def _parameters(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    architecture = shape.architecture
    yield "embedding.weight", (shape.padded_vocab, shape.width)
    if architecture.max_positions is not None:
        yield "position_embedding.weight", (architecture.max_positions, shape.width)
    for number in range(shape.layers):
        for name, size in _layer(shape):
            yield f"layers.{number}.{name}", size
    yield from _norm(shape, "final_norm")
    if not architecture.tied:
        yield "unembedding.weight", (shape.padded_vocab, shape.width)


def _layer(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    yield from _norm(shape, "attention_norm")
    for name, rows in (("query", queries), ("key", keys), ("value", keys)):
        yield from _linear(shape, f"attention.{name}", rows, shape.width)
    yield from _linear(shape, "attention.output", shape.width, queries)
    yield from _norm(shape, "feedforward_norm")
    if shape.architecture.feedforward == "swiglu":
        yield from _linear(shape, "feedforward.gate", shape.filter, shape.width)
    yield from _linear(shape, "feedforward.up", shape.filter, shape.width)
    yield from _linear(shape, "feedforward.down", shape.width, shape.filter)


def _linear(shape: Shape, name: str, outputs: int, inputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs)
    if shape.architecture.bias:
        yield f"{name}.bias", (outputs,)


def _norm(shape: Shape, name: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (shape.width,)
    if shape.architecture.norm == "layernorm":
        yield f"{name}.bias", (shape.width,)
