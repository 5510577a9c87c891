"""What a process of dataproc does without: pandas, looking for garbage among what it has imported, and giving memory
back that it is about to want again.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Sequence
from functools import cache
from types import ModuleType

import pyarrow as pa

KEPT_BYTES = 64 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # as malloc.h has them


@cache
def without_pandas() -> None:
    """Has pyarrow take it that no one hands it pandas' objects. Otherwise its first array imports pandas, where that is
    installed, to ask whether it is one of these: 0.2 s of CPU and 40 MB, in every worker.

    Who asks pyarrow for a DataFrame gets one nevertheless: then it tries again.
    """
    if "pandas" not in sys.modules:
        sys.meta_path.insert(0, _NoPandas)
        try:
            pa.array([0])
        finally:
            sys.meta_path.remove(_NoPandas)


@cache
def keep_what_is_imported() -> None:
    """Takes what is there out of Python's garbage collection, which would look through it again and again: 0.1 s for
    a hundred thousand objects, whenever about as many are new.
    """
    gc.freeze()


@cache
def keep_freed_memory() -> None:
    """Has glibc keep up to KEPT_BYTES of what is freed. Encoding makes and frees a great many small objects a batch,
    and had nine tenths of its pages from the system again and again: 2 to 4 % of its time.
    """
    allocator = getattr(ctypes.CDLL(None), "mallopt", None)
    if allocator is not None:  # other C libraries have none, and go their own ways
        allocator(_M_TRIM_THRESHOLD, KEPT_BYTES)
        allocator(_M_MMAP_THRESHOLD, KEPT_BYTES // 2)


class _NoPandas:
    """A finder to which there is no pandas."""

    @staticmethod
    def find_spec(name: str, _path: Sequence[str] | None, _target: ModuleType | None = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)
