"""Windows of documents → a model's loss by position, in nats per token, with intervals over documents.

    windows ──model──► nats of each token ──► sums per document and bucket ──► curves

Intervals are of the percentile bootstrap over documents (`intervals.py`). All curves are over the same documents with
the same draws, so differences between them, and along one of them, are paired.

Shapes: W windows, B of a batch, T tokens of a window, V rows of the embedding, N documents, K buckets, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from evalkit.buckets import Bucket
from evalkit.intervals import FEW, Floats, middle, resampled_sums
from evalkit.scorer import Model as Predictor
from manifest.identity import hash64
from manifest.record import Model

Integers = npt.NDArray[np.int64]


class Value(Model):
    """Nats per token, or a difference of such. [low, high]: its interval, or the range of few documents' values."""

    value: float
    low: float
    high: float


class Curve(Model):
    """The losses of one checkpoint in windows of `length` tokens, a value per bucket up to that length.

    scale: what ALiBi's slopes are divided by for windows of this length; 1 is plain. differences: from the first of all
    curves, in the same buckets; empty for the first itself. rises_at: where the first bucket beyond the trained length
    begins whose loss lies above that of the last trained bucket, by the whole interval of the difference, if any does.
    """

    checkpoint: str
    length: int
    scale: float
    losses: tuple[Value, ...]
    differences: tuple[Value, ...] = ()
    rises_at: int | None = None

    @property
    def label(self) -> str:
        return self.checkpoint if self.scale == 1 else f"{self.checkpoint}, slopes / {self.scale:g}"


@dataclass(frozen=True)
class Sums:
    """What a checkpoint, trained on windows of `trained` tokens, was measured to need in windows of `length`.

    nats: (N, K), of each document in each bucket up to `length`, over all of its windows.
    """

    checkpoint: str
    length: int
    scale: float
    trained: int
    nats: Floats


@torch.inference_mode()
def position_nats(
    model: Predictor, windows_WT: Integers, *, batch_tokens: int, device: torch.device | None = None
) -> Floats:
    """(W, T − 1): −ln p of each token of each window but the first. Column p − 1 is position p.

    batch_tokens: how many tokens go through the model at once (at least one window does); to rounding, the same result.
    """
    count, length = windows_WT.shape
    found_WT = np.empty((count, length - 1))
    step = max(1, batch_tokens // length)
    for first in range(0, count, step):
        tokens_BT = torch.from_numpy(windows_WT[first : first + step]).to(device)
        logits_BTV = model(tokens_BT[:, :-1]).float()
        nats = functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten(), reduction="none")
        found_WT[first : first + step] = nats.view(len(tokens_BT), -1).double().cpu().numpy()
    return found_WT


def document_sums(nats_WT: Floats, document_W: Integers, buckets: Sequence[Bucket]) -> Floats:
    """(N, K): the nats of each document in each bucket, over all of its windows."""
    sums_NK = np.zeros((int(document_W.max()) + 1, len(buckets)))
    for column, bucket in enumerate(buckets):
        np.add.at(sums_NK[:, column], document_W, nats_WT[:, bucket.first - 1 : bucket.stop - 1].sum(axis=1))
    return sums_NK


def curves(measured: Sequence[Sums], document_W: Integers, buckets: Sequence[Bucket]) -> tuple[Curve, ...]:
    """A curve for each of the sums. The first has all buckets; the others are compared with it."""
    windows_N = np.bincount(document_W).astype(np.float64)
    widths_K = np.array([bucket.width for bucket in buckets], dtype=np.float64)
    first_NK = measured[0].nats / widths_K
    found = []
    for sums in measured:
        known = sums.nats.shape[1]
        loss_NK = sums.nats / widths_K[:known]
        curve = Curve(
            checkpoint=sums.checkpoint,
            length=sums.length,
            scale=sums.scale,
            losses=means(loss_NK, windows_N),
            differences=() if sums is measured[0] else means(loss_NK - first_NK[:, :known], windows_N),
            rises_at=_rises_at(loss_NK, windows_N, buckets, sums.trained),
        )
        found.append(curve)
    return tuple(found)


def _rises_at(loss_NK: Floats, windows_N: Floats, buckets: Sequence[Bucket], trained: int) -> int | None:
    inside = sum(bucket.stop <= trained for bucket in buckets[: loss_NK.shape[1]])
    if not 0 < inside < loss_NK.shape[1]:
        return None
    beyond = means(loss_NK[:, inside:] - loss_NK[:, [inside - 1]], windows_N)
    return next((buckets[inside + k].first for k, rise in enumerate(beyond) if rise.low > 0), None)


def means(sums_NK: Floats, windows_N: Floats) -> tuple[Value, ...]:
    """Of each column Σ sums / Σ windows. Below FEW documents, the range of their values in place of an interval."""
    values_K = sums_NK.sum(axis=0) / windows_N.sum()
    if len(sums_NK) < FEW:
        each_NK = sums_NK / windows_N[:, None]
        ends = list(zip(each_NK.min(axis=0), each_NK.max(axis=0), strict=True))
    else:
        drawn_RD = resampled_sums(np.column_stack([windows_N, sums_NK]), seed=hash64("bootstrap/loss_by_position"))
        ends = [middle(sums_R / drawn_RD[:, 0]) for sums_R in drawn_RD[:, 1:].T]
    return tuple(
        Value(value=float(value), low=float(low), high=float(high))
        for value, (low, high) in zip(values_K, ends, strict=True)
    )
