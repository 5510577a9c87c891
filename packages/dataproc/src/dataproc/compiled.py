"""How kernels are compiled that need numba at run time: those of what-if and of decontamination, which begin seldom.

All others are in `kernels`, and need none: `native.py`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])
# Machine code, compiled on first use, kept beside the source, and free of the GIL. Numba looks only at the
# file of the compiled function to see whether its copy is stale, so kernels call only kernels of their own
# file (pair_levels.py says what to do about its exception).
kernel: Callable[[F], F] = njit(nogil=True, cache=True)
# For what kernels call for every byte or word, and which makes no arrays: without reference counts, twice as fast.
part: Callable[[F], F] = njit(nogil=True, cache=True, _nrt=False)
