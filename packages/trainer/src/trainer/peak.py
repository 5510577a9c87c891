"""How fast this worker's device multiplies matrices: the peak that MFU is a share of.

MFU (model FLOPs utilisation) is the FLOPs of the model alone, without what is computed again for activation
checkpointing, over those that the devices could do in the time (Chowdhery et al., 2022, "PaLM", section 4.1). The peak
is measured and not looked up, so that it exists for any device and means the same on each.
"""

from __future__ import annotations

import time
from functools import cache

import torch

SIZE = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices: beyond them the rate hardly grows."""
TRIES = {"cpu": 3, "cuda": 10}


@cache
def peak_flops(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of the best of a few products of two square matrices. device: cpu or cuda. Measured once per process."""
    size = SIZE[device]
    left, right = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best = min(_seconds(left, right) for _ in range(TRIES[device]))
    del left, right
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # these are no part of what a run needs (memory.py)
    return 2 * size**3 / best


def _seconds(left: torch.Tensor, right: torch.Tensor) -> float:
    started = time.perf_counter()
    product = left @ right
    float(product[0, 0])  # waits for the device
    return time.perf_counter() - started
