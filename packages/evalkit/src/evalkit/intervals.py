"""How sure a score is: the percentile bootstrap over documents.

Documents are drawn again, with replacement, as many as there are; a score is a ratio of sums over them, and its
interval is the middle 95 % of the ratios of RESAMPLES draws (Efron and Tibshirani, 1993, chapter 13). Columns that are
summed in one call share their draws, so a difference of two ratios is *paired*: what is easy for both models cancels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

RESAMPLES = 1000
CONFIDENCE = 0.95
FEW = 5
"""Below so many documents there is no interval to speak of, and the range of the documents' values is given instead."""

CHUNK = 1 << 22  # indices drawn at once: 32 MB

Floats = npt.NDArray[np.float64]


def resampled_sums(values_ND: Floats, *, seed: int) -> Floats:
    """(RESAMPLES, D): the sums of the columns over each resample of the N rows."""
    count, columns = values_ND.shape
    generator = np.random.default_rng(seed)
    sums_RD = np.empty((RESAMPLES, columns))
    step = max(1, CHUNK // count)
    for first in range(0, RESAMPLES, step):
        drawn_RN = generator.integers(0, count, size=(min(step, RESAMPLES - first), count))
        for column in range(columns):
            sums_RD[first : first + step, column] = values_ND[:, column][drawn_RN].sum(axis=1)
    return sums_RD


def middle(values_R: Floats) -> tuple[float, float]:
    """The ends of the middle CONFIDENCE of some values."""
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values_R, [tail, 1 - tail])
    return float(low), float(high)
