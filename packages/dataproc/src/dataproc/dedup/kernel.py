"""How the kernels of this package are compiled, and the arrays that they take."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

F = TypeVar("F", bound=Callable[..., Any])
# Machine code, compiled on first use, kept beside the source, and free of the GIL. Numba looks only at the
# file of the compiled function to see whether its copy is stale, so kernels call only kernels of their own
# file (pairs.py says what to do about its exception).
kernel: Callable[[F], F] = njit(nogil=True, cache=True)
