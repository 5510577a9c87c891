"""How much memory this process has needed."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

UNIT = 1 if sys.platform == "darwin" else 1024
"""Of `ru_maxrss`, in bytes."""


STATUS, REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""What Linux knows of this process: its peak among it, which `5` in the second sets anew (proc(5))."""


def reset_peak() -> None:
    """Begins to measure anew. Where the system has no such thing, the peak goes on to be that of the whole process."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        return
    with suppress(OSError):
        REFERENCES.write_text("5")


def peak_bytes() -> int:
    """The most memory that was in use at once since the last `reset_peak`: of tensors on the GPU, or, without one, of
    the whole process.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
