"""Every name of a tensor, once, for both ways: our decoder's ↔ those of a family of Hugging Face models.

    ours    layers.3.attention.{query,key,value}.weight
    theirs  transformer.h.3.attn.c_attn.weight               stacked, transposed, rotary rows in pairs

A family's `Names` says which of our modules one of theirs holds, and how; `join` makes theirs of ours, `split` ours of
theirs. Both only move numbers, so there and back is the same bit for bit. The rows of the embedding that pad its
vocabulary are cut on the way out, and are zeros on the way in.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from trainer.model.decoder import Decoder
from trainer.model.shape import Shape

TABLES = ("embedding.weight", "unembedding.weight")


@dataclass(frozen=True)
class Names:
    """The modules of a family.

    top, layer: theirs → ours, the latter below `prefix.format(number of the layer)`. transposed: those of theirs whose
    matrices are (inputs, outputs). heads: how theirs order the rows of a stacked query, key and value: one after the
    other, or head by head. pairs: rotated dimensions of a head are pairs (2i, 2i + 1) in theirs, not (i, i + R/2).
    """

    top: Mapping[str, str]
    prefix: str
    layer: Mapping[str, tuple[str, ...]]
    transposed: frozenset[str] = field(default_factory=frozenset)
    heads: Literal["stacked", "by head"] = "stacked"
    pairs: bool = False

    def untransposed(self) -> Names:
        """The same, with all matrices (outputs, inputs)."""
        return replace(self, transposed=frozenset())


@dataclass(frozen=True)
class Entry:
    """A tensor of theirs and those of ours that it holds."""

    theirs: str
    ours: tuple[str, ...]
    transposed: bool
    by_head: bool


@functools.lru_cache(maxsize=4)
def sizes(shape: Shape) -> dict[str, torch.Size]:
    """The parameters of a decoder."""
    with torch.device("meta"):
        return {name: parameter.shape for name, parameter in Decoder(shape).named_parameters()}


def entries(names: Names, shape: Shape) -> Iterator[Entry]:
    """All tensors of theirs, in the order of the layers."""
    ours = sizes(shape)
    modules: list[tuple[str, tuple[str, ...], str]] = [(theirs, (ours,), theirs) for theirs, ours in names.top.items()]
    for number in range(shape.layers):
        before = names.prefix.format(number)
        modules += [
            (before + theirs, tuple(f"layers.{number}.{part}" for part in parts), theirs)
            for theirs, parts in names.layer.items()
        ]
    for theirs, parts, kind in modules:
        for leaf in ("weight", "bias"):
            held = tuple(f"{part}.{leaf}" for part in parts)
            if all(name in ours for name in held):
                transposed = leaf == "weight" and kind in names.transposed
                yield Entry(f"{theirs}.{leaf}", held, transposed, len(held) == 3 and names.heads == "by head")


def join(names: Names, shape: Shape, entry: Entry, parts: Sequence[Tensor]) -> Tensor:
    """Theirs, of ours."""
    parts = [_paired(shape, part) if _is_rotated(names, shape, ours) else part for ours, part in _zip(entry, parts)]
    if entry.by_head:
        rows = [part.view(shape.heads, shape.head_dim, *part.shape[1:]) for part in parts]
        joined = torch.stack(rows, dim=1).flatten(0, 2)
    else:
        joined = torch.cat(list(parts)) if len(parts) > 1 else parts[0]
    if entry.ours[0] in TABLES:
        joined = joined[: shape.vocab_size]
    return (joined.t() if entry.transposed else joined).contiguous()


def split(names: Names, shape: Shape, entry: Entry, theirs: Tensor) -> list[Tensor]:
    """Ours, of theirs. Raises ValueError if it is not of the shape that it should be."""
    known = sizes(shape)
    expected = [known[name] for name in entry.ours]
    rows = theirs.t() if entry.transposed else theirs
    if entry.ours[0] in TABLES:
        rows = _padded(shape, rows)
    if rows.shape != (sum(size[0] for size in expected), *expected[0][1:]):
        raise ValueError(f"{entry.theirs} is {tuple(theirs.shape)}")
    if entry.by_head:
        by_head = rows.reshape(shape.heads, 3, shape.head_dim, *rows.shape[1:])
        parts = [by_head[:, index].flatten(0, 1) for index in range(3)]
    else:
        parts = list(torch.split(rows, [size[0] for size in expected]))
    return [
        (_unpaired(shape, part) if _is_rotated(names, shape, ours) else part).contiguous()
        for ours, part in _zip(entry, parts)
    ]


def _zip(entry: Entry, parts: Sequence[Tensor]) -> Iterator[tuple[str, Tensor]]:
    return zip(entry.ours, parts, strict=True)


def _is_rotated(names: Names, shape: Shape, ours: str) -> bool:
    rotates = names.pairs and shape.architecture.position == "rope"
    return rotates and ours.rsplit(".", 1)[0].endswith(("attention.query", "attention.key"))


def _pairs(shape: Shape) -> Tensor:
    """(D,): where in our head each dimension of theirs stands."""
    half = shape.rotary_dims // 2
    rotated = torch.arange(2 * half).view(2, half).t().flatten()
    return torch.cat([rotated, torch.arange(2 * half, shape.head_dim)])


def _paired(shape: Shape, part: Tensor) -> Tensor:
    return _ordered(shape, part, _pairs(shape))


def _unpaired(shape: Shape, part: Tensor) -> Tensor:
    return _ordered(shape, part, _pairs(shape).argsort())


def _ordered(shape: Shape, part: Tensor, order_D: Tensor) -> Tensor:
    """The rows of every head in another order."""
    return part.reshape(-1, shape.head_dim, *part.shape[1:])[:, order_D].reshape(part.shape)


def _padded(shape: Shape, rows: Tensor) -> Tensor:
    if rows.shape[0] != shape.vocab_size:
        raise ValueError(f"a table of {rows.shape[0]} rows, for a vocabulary of {shape.vocab_size}")
    return torch.cat([rows, rows.new_zeros(shape.padded_vocab - shape.vocab_size, *rows.shape[1:])])
