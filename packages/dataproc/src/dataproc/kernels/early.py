"""Two sets → how many of some thresholds their Jaccard index J reaches, from the smallest hashes of both where these
can tell.

Hashes are uniform, so the n different ones up to some number are a fair sample of the union, and how many of them are
in both sets is binomial (n, J). By Chernoff's bound a share q on one side of a threshold t is seen, though J lies on
the other, with a probability of at most exp(-n · D(q ‖ t)), D being the relative entropy of two coins. Each look takes
twice as many hashes as the one before it; what no look can tell, the whole sets do.
"""

import math

import numpy as np

from dataproc.kernels.alike import beyond, look_at_pair, shared_of
from dataproc.kernels.build import part
from dataproc.native import F64, I64, U8, U64

FIRST_LOOK = 256  # hashes of both sets together; fewer tell little more than the signature did
_SURE = 23.9  # -ln of the odds; 22 looks, at up to 10⁹ hashes, err in 10⁻⁹ of all cases (jaccard.ODDS_AGAINST_ERROR)


def reach_each(hashes: U64, starts: I64, sizes: I64, looked_at: I64, pairs: I64, thresholds: F64, reached: U8) -> int:
    """reached[p]: how many of the thresholds the sets pairs[2p] and pairs[2p + 1] reach."""
    for pair in range(len(reached)):
        a, b = pairs[2 * pair], pairs[2 * pair + 1]
        if min(sizes[a], sizes[b]) > 0:
            sets = starts[a], sizes[a], starts[b], sizes[b]
            reached[pair], _ = level_of(hashes, *sets, looked_at, thresholds, 0, len(thresholds))
    return 0


@part
def level_of(
    hashes: U64, a: int, size_a: int, b: int, size_b: int, looked_at: I64, thresholds: F64, least: int, most: int
) -> tuple[int, bool]:
    """How many of the thresholds, ascending, the sets hashes[a : a + size_a] and hashes[b : b + size_b], ascending,
    reach: from `least` to `most`, as is known before. And whether it took the whole sets to tell.
    """
    i, j, end_a, end_b = a, b, a + size_a, b + size_b
    shared, look = 0, FIRST_LOOK
    look_at_pair(looked_at)
    while look < (size_a + size_b) // 2:
        share = look / (size_a + size_b)
        to_i, to_j = _end_of(share, hashes, i, end_a), _end_of(share, hashes, j, end_b)
        shared += shared_of(hashes, i, to_i - i, j, to_j - j, looked_at, 0)
        i, j = to_i, to_j
        seen = (i - a) + (j - b) - shared
        while least < most and _is_sure(shared, seen, thresholds[least]) and shared >= thresholds[least] * seen:
            least += 1
        while least < most and _is_sure(shared, seen, thresholds[most - 1]) and shared < thresholds[most - 1] * seen:
            most -= 1
        if least == most:
            return least, False
        look *= 2
    # J ≥ t if they share t / (1 + t) · (|a| + |b|) or more.
    needed = int(thresholds[least] / (1 + thresholds[least]) * (size_a + size_b))
    shared += shared_of(hashes, i, end_a - i, j, end_b - j, looked_at, needed - shared)
    index = shared / (size_a + size_b - shared)
    while least < most and index >= thresholds[least]:
        least += 1
    return least, True


@part
def _end_of(share: float, hashes: U64, low: int, end: int) -> int:
    """Where the hashes end that lie in the first share of all numbers. Looks near where that should be."""
    value = np.uint64(share * 2.0**64)
    high = min(end, low + 2 * int((end - low) * share) + 64)
    if high < end and hashes[high - 1] <= value:
        high = end
    return beyond(hashes, low, high, value)


@part
def _is_sure(shared: int, seen: int, threshold: float) -> bool:
    """Whether so many shared hashes, of so many that were seen, tell on which side of the threshold J lies."""
    return seen > 0 and seen * _entropy(shared / seen, threshold) > _SURE


@part
def _entropy(q: float, t: float) -> float:
    """D(q ‖ t), in nats. Infinite if q is impossible at t."""
    heads = q * math.log(q / t) if q > 0 else 0.0
    tails = (1 - q) * math.log((1 - q) / (1 - t)) if q < 1 else 0.0
    return heads + tails
