"""Frozen parameters in fp32, where the module's own copies are rounded to 16 bits.

Each lies in the host's memory of one rank, in turn, so that all of them together hold four bytes per frozen parameter.
What is trained has masters of DeepSpeed's.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

SLICE = 1 << 26
"""Numbers that are on the device at a time: 256 MB."""


class Masters:
    """The frozen parameters of these names, in the same order on all ranks."""

    def __init__(self, names: Iterable[str], device: torch.device) -> None:
        self._owners = {name: index % torch.distributed.get_world_size() for index, name in enumerate(names)}
        self._device = device
        self._own: dict[str, Tensor] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._owners

    def set(self, name: str, value: Tensor) -> None:
        """Keeps a whole tensor, which every rank gives."""
        if self._owners[name] == torch.distributed.get_rank():
            self._own[name] = value.detach().to("cpu", torch.float32, copy=True)

    def get(self, name: str, shape: torch.Size) -> Tensor:
        """The whole tensor, on the CPU. Collective."""
        whole = self._own[name].clone() if name in self._own else torch.empty(shape)
        for part in torch.split(whole.view(-1), SLICE):
            sent = part.to(self._device)
            torch.distributed.broadcast(sent, self._owners[name])
            part.copy_(sent)
        return whole

    def forget(self) -> None:
        """Holds none any more."""
        self._own = {}
