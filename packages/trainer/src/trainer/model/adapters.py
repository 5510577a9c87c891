"""A decoder of which only a part is trained: frozen parameters, and trained ones beside them.

    rows of a table     embedding.weight (V, C) stays; embedding.new_rows (V − first, C) stands for its last rows

What stands beside a frozen parameter has a name of its own, so an optimiser holds nothing for the rest.
V rows, C width, B windows, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.model.parameters import TABLES
from trainer.model.shape import Shape
from trainer.trainable import ROWS, Trainable, rows_name, trained

Get = Callable[[str], Tensor]
"""A stored parameter, by its name."""


class Table(nn.Module):
    """A matrix with a row per token, of which those from `first` on are trained. As an embedding: tokens → rows."""

    def __init__(self, weight: nn.Parameter, first: int) -> None:
        super().__init__()
        self.first = first
        self.weight = weight
        self.new_rows = nn.Parameter(weight.detach()[first:].clone())

    def forward(self, tokens_BT: Tensor) -> Tensor:
        new_BT1 = (tokens_BT >= self.first).unsqueeze(-1)
        old_BTC = functional.embedding(tokens_BT.clamp(max=self.first - 1), self.weight)
        new_BTC = functional.embedding((tokens_BT - self.first).clamp(min=0), self.new_rows)
        return torch.where(new_BT1, new_BTC, old_BTC)


def logits(x_BTC: Tensor, table: nn.Module) -> Tensor:
    """x · rows, for all rows of an embedding or output head. The old rows of a `Table` take no part in the gradient."""
    if not isinstance(table, Table):
        weight: Any = table.weight
        return functional.linear(x_BTC, weight)
    old_BTV = functional.linear(x_BTC, table.weight[: table.first])
    return torch.cat([old_BTV, functional.linear(x_BTC, table.new_rows)], dim=-1)


def adapt(decoder: nn.Module, trainable: Trainable, shape: Shape) -> None:
    """Freezes what is not trained, and puts beside it what is. Before an optimiser is made."""
    names = trained(trainable, shape)
    first = trainable.first_row
    if first is not None:
        for name in TABLES:
            module = name.removesuffix(".weight")
            table = getattr(decoder, module, None)
            if table is not None:
                setattr(decoder, module, Table(table.weight, first))
    held = dict(decoder.named_parameters())
    assert names.keys() <= held.keys(), sorted(names.keys() - held.keys())
    for name, parameter in held.items():
        parameter.requires_grad_(name in names)


def description(trainable: Trainable) -> dict[str, Any] | None:
    """What a checkpoint says of the parameters that stand beside frozen ones; None if there are none."""
    first = trainable.first_row
    return None if first is None else {"new_rows": first}


def beside(adapters: Mapping[str, Any] | None, shape: Shape) -> dict[str, tuple[int, ...]]:
    """The parameters that stand beside frozen ones, by such a description, with their shapes."""
    return {} if adapters is None else trained(Trainable.model_validate(adapters), shape)


def merged(name: str, get: Get, adapters: Mapping[str, Any] | None) -> Tensor:
    """A parameter of the plain decoder: the stored one, with what was trained beside it."""
    value = get(name)
    if adapters and "new_rows" in adapters and name in TABLES:
        return torch.cat([value[: int(adapters["new_rows"])], get(rows_name(name))])
    return value


def from_plain(name: str, get: Get, trainable: Trainable) -> Tensor:
    """A parameter of an adapted decoder, of those of a plain one."""
    if name.endswith(ROWS):
        return get(name.removesuffix(ROWS) + ".weight")[trainable.first_row :]
    return get(name)
