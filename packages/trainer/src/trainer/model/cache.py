"""What a decoder remembers of the tokens that it has read: their keys and values, so that each is read once.

Shapes: B rows, K key-value heads, N tokens of capacity, D dimensions of a head.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.model.shape import Shape


class LayerCache:
    """Keys and values of one layer."""

    def __init__(self, keys_BKND: Tensor, values_BKND: Tensor) -> None:
        self._keys, self._values = keys_BKND, values_BKND

    def extend(self, key_BKQD: Tensor, value_BKQD: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """Puts those of new tokens behind the first `first` ones. Returns all up to the last new one."""
        last = first + key_BKQD.shape[2]
        self._keys[:, :, first:last], self._values[:, :, first:last] = key_BKQD, value_BKQD
        return self._keys[:, :, :last], self._values[:, :, :last]

    def keep(self, rows: Tensor) -> LayerCache:
        return LayerCache(self._keys[rows], self._values[rows])


class Cache:
    """All layers. `length`: tokens read so far. starts_B: the first token of each row that is no padding, on the left.

    capacity: the tokens that it can hold; its memory is taken at once.
    """

    def __init__(
        self,
        shape: Shape,
        rows: int,
        capacity: int,
        *,
        starts_B: Tensor | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.length, self.capacity, self.starts_B = 0, capacity, starts_B
        size = (rows, shape.kv_heads, capacity, shape.head_dim)

        def empty() -> Tensor:
            return torch.empty(size, device=device, dtype=dtype)

        self.layers = [LayerCache(empty(), empty()) for _ in range(shape.layers)]

    def keep(self, rows: Tensor) -> None:
        """Goes on with these rows only, in this order."""
        self.layers = [layer.keep(rows) for layer in self.layers]
        self.starts_B = None if self.starts_B is None else self.starts_B[rows]
