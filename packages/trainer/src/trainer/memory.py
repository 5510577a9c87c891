"""How much memory this process has needed so far."""

from __future__ import annotations

import resource
import sys

import torch

UNIT = 1 if sys.platform == "darwin" else 1024
"""Of `ru_maxrss`, in bytes."""


def peak_bytes() -> int:
    """The most memory that was in use at once: of tensors on the GPU, or, without one, of the whole process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
