"""Two documents → how alike they are: exactly from their shingle sets, or about from their signatures.

Sets are ascending u64 arrays without repeats; signatures are (D,) u32. The share of equal minima of two
signatures estimates their Jaccard index J: the number of equal ones is binomial (D, J). Far from a threshold
the estimate alone settles on which side J lies; `sketch_bounds` says from where on.
"""

from functools import cache
from itertools import accumulate
from math import comb
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataproc.native import Native

_shared = Native("dataproc.kernels.alike", "shared")

# A sketch may decide where it errs in fewer than one of this many cases, even for pairs that lie just at the
# threshold. A build that compares a billion pairs there would expect one wrong decision.
ODDS_AGAINST_ERROR = 10**9


class SketchBounds(NamedTuple):
    """Counts of equal minima: up to `reject_at` the pair is none, from `accept_at` on it is one."""

    reject_at: int
    accept_at: int


@cache
def sketch_bounds(threshold: float, permutations: int) -> SketchBounds:
    """The widest bounds with P(equal ≤ reject_at | J ≥ threshold) and P(equal ≥ accept_at | J < threshold)
    under 1 / ODDS_AGAINST_ERROR. -1, or permutations + 1, where the sketch can never tell.

    Both are worst at J = threshold. In integers: a float threshold is a fraction, exactly.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"a Jaccard threshold lies in (0, 1], not at {threshold}")
    part, whole = threshold.as_integer_ratio()
    weights = [comb(permutations, k) * part**k * (whole - part) ** (permutations - k) for k in range(permutations + 1)]
    low = sum(tail * ODDS_AGAINST_ERROR < whole**permutations for tail in accumulate(weights))
    high = sum(tail * ODDS_AGAINST_ERROR < whole**permutations for tail in accumulate(reversed(weights)))
    return SketchBounds(low - 1, permutations + 1 - high)


def exact(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> float:
    """The Jaccard index of two sets; 0 for two empty ones, which share nothing."""
    shared = _shared(a, b)
    union = len(a) + len(b) - shared
    return shared / union if union else 0.0


def estimate(a: NDArray[np.uint32], b: NDArray[np.uint32]) -> float:
    """The share of equal minima. Its standard error is √(J (1 - J) / D): 0.035 at J = 0.8 and D = 128."""
    return int((a == b).sum()) / len(a)
