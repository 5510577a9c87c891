"""How the other kernels of this package are compiled, and the arrays that they take.

Those that work on texts and signatures are in `kernels` and need no numba at run time: `native.py`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

from dataproc.dedup.native import I64, U8, U64

__all__ = ["I64", "U8", "U64", "kernel", "part"]

F = TypeVar("F", bound=Callable[..., Any])
# Machine code, compiled on first use, kept beside the source, and free of the GIL. Numba looks only at the
# file of the compiled function to see whether its copy is stale, so kernels call only kernels of their own
# file (pairs.py says what to do about its exception).
kernel: Callable[[F], F] = njit(nogil=True, cache=True)
# For what kernels call for every byte or word, and which makes no arrays: without reference counts, twice as fast.
part: Callable[[F], F] = njit(nogil=True, cache=True, _nrt=False)
