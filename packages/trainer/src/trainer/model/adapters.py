"""A decoder of which only a part is trained: frozen parameters, and trained ones beside them.

    rows of a table     embedding.weight (V, C) stays; embedding.new_rows (V − first, C) stands for its last rows
    LoRA                query.weight (O, I) stays; query.lora_a (R, I) and query.lora_b (O, R) add scale · B A to it

What stands beside a frozen parameter has a name of its own, so an optimiser holds nothing for the rest.
V rows, C width, B windows, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from manifest.identity import hash64
from trainer.model.parameters import TABLES
from trainer.model.shape import Shape
from trainer.recipe_lora import A, B, Lora, is_matrix
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


class LoraLinear(nn.Module):
    """W x + bias + scale · B A dropout(x). W and bias are frozen."""

    def __init__(self, linear: nn.Linear, lora: Lora) -> None:
        super().__init__()
        outputs, inputs = linear.weight.shape
        self.scale, self.dropout = lora.scale, lora.dropout
        self.weight, self.bias = linear.weight, linear.bias
        self.lora_a = nn.Parameter(torch.empty(lora.rank, inputs))
        self.lora_b = nn.Parameter(torch.zeros(outputs, lora.rank))

    def forward(self, x_BTI: Tensor) -> Tensor:
        out_BTO = functional.linear(x_BTI, self.weight, self.bias)
        a_BTR = functional.linear(functional.dropout(x_BTI, self.dropout, self.training), self.lora_a) * self.scale
        # The sum in the product's own pass: at these ranks a pass over the outputs costs as much as the product.
        added = torch.addmm(out_BTO.flatten(0, -2), a_BTR.flatten(0, -2), self.lora_b.t())
        return added.view(out_BTO.shape)


def logits(x_BTC: Tensor, table: nn.Module) -> Tensor:
    """x · rows, for all rows of an embedding or output head. The old rows of a `Table` take no part in the gradient."""
    if not isinstance(table, Table):
        weight: Any = table.weight
        return functional.linear(x_BTC, weight)
    old_BTV = functional.linear(x_BTC, table.weight[: table.first])
    return torch.cat([old_BTV, functional.linear(x_BTC, table.new_rows)], dim=-1)


def adapt(decoder: nn.Module, trainable: Trainable, shape: Shape, *, seed: int) -> None:
    """Freezes what is not trained, and puts beside it what is, begun from the seed. Before an optimiser is made."""
    names = trained(trainable, shape)
    if trainable.first_row is not None:
        for module in {name.removesuffix(ROWS) for name in names}:
            setattr(decoder, module, Table(getattr(decoder, module).weight, trainable.first_row))
    if trainable.lora is not None:
        for module in {name.removesuffix(A) for name in names if name.endswith(A)}:
            parent, _, child = module.rpartition(".")
            linear = decoder.get_submodule(module)
            assert isinstance(linear, nn.Linear)
            setattr(decoder.get_submodule(parent), child, LoraLinear(linear, trainable.lora))
        _initialise(decoder, seed)
    held = dict(decoder.named_parameters())
    assert names.keys() <= held.keys(), sorted(names.keys() - held.keys())
    for name, parameter in held.items():
        parameter.requires_grad_(name in names)


@torch.no_grad()
def _initialise(decoder: nn.Module, seed: int) -> None:
    """A as a linear layer of torch's begins, which is how PEFT begins it too: uniform up to 1 / √inputs. B is zeros.

    Each from a generator of its own, keyed (seed, name).
    """
    for name, parameter in decoder.named_parameters():
        if name.endswith(A):
            generator = torch.Generator().manual_seed(hash64(f"winnow lora 1|{seed}|{name}") >> 1)
            bound = parameter.shape[1] ** -0.5
            parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))


def description(trainable: Trainable) -> dict[str, Any] | None:
    """What a checkpoint says of the parameters that stand beside frozen ones; None if there are none."""
    beside_frozen = trainable.first_row is not None or trainable.lora is not None
    return trainable.model_dump() if beside_frozen else None


def beside(adapters: Mapping[str, Any] | None, shape: Shape) -> dict[str, tuple[int, ...]]:
    """The parameters that stand beside frozen ones, by such a description, with their shapes."""
    return {} if adapters is None else trained(Trainable.model_validate(adapters), shape)


def merged(name: str, get: Get, adapters: Mapping[str, Any] | None) -> Tensor:
    """A parameter of the plain decoder: the stored one, with what was trained beside it."""
    value = get(name)
    how = None if adapters is None else Trainable.model_validate(adapters)
    if how is None:
        return value
    if how.new_rows is not None and name in TABLES:
        return torch.cat([value[: how.new_rows], get(rows_name(name))])
    module = name.removesuffix(".weight")
    if how.lora is not None and is_matrix(name) and how.lora.is_target(module):
        return torch.addmm(value, get(module + B), get(module + A), alpha=how.lora.scale)
    return value


def from_plain(name: str, get: Get, trainable: Trainable) -> Tensor | None:
    """A parameter of an adapted decoder, of those of a plain one; None for one that begins as `adapt` made it."""
    if name.endswith((A, B)):
        return None
    if name.endswith(ROWS):
        return get(name.removesuffix(ROWS) + ".weight")[trainable.first_row :]
    return get(name)
