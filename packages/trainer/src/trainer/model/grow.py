"""Rows for new tokens, in a table of embeddings or of an output head: five ways for them to begin.

    mean of pieces   the mean of the rows of the tokens that stood for it
    mean of all      the mean of all old rows
    similarity       Σ w · row over the k old tokens that are most like it in auxiliary embeddings, w in proportion to
                     the cosine (in the manner of FOCUS, Dobler and de Melo, 2023)
    projection       its row in another model's table times the matrix that fits best, in least squares, where both
                     models have the token
    random           as in a fresh decoder

Old rows are never touched, so the logits of old tokens are what they were, bit for bit. Shapes: V rows of the table, C
its width; N new tokens, K neighbours, S shared tokens, D width of the other model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from manifest.identity import hash64

CHUNK = 4096
"""Tokens whose likeness to all others is in memory at once."""


def with_rows(table_VC: Tensor, ids_N: Tensor, rows_NC: Tensor, padded: int) -> Tensor:
    """A table of `padded` rows: the old ones, the new ones at their ids, and zeros where there were none before."""
    grown = table_VC.new_zeros(padded, table_VC.shape[1])
    held = min(padded, table_VC.shape[0])
    grown[:held] = table_VC[:held]
    grown[ids_N] = rows_NC.to(table_VC.dtype)
    return grown


def mean_of_pieces(table_VC: Tensor, pieces: Sequence[Sequence[int]], else_C: Tensor) -> Tensor:
    """(N, C). else_C: for a token without pieces."""
    rows = [table_VC[list(ids)].double().mean(0) if ids else else_C.double() for ids in pieces]
    return torch.stack(rows).to(table_VC.dtype)


def mean_of_all(table_VC: Tensor, old_ids: Sequence[int]) -> Tensor:
    """(C,): the mean of the rows of old tokens."""
    return table_VC[list(old_ids)].double().mean(0).to(table_VC.dtype)


def random(count: int, width: int, *, std: float, seed: int, name: str) -> Tensor:
    """(N, C): normal, truncated at ± 2 std, from a generator keyed by the seed and the table's name."""
    generator = torch.Generator().manual_seed(hash64(f"winnow grow 1|{seed}|{name}") >> 1)
    rows = torch.empty(count, width)
    return nn.init.trunc_normal_(rows, std=std, a=-2 * std, b=2 * std, generator=generator)


@dataclass(frozen=True)
class Neighbours:
    """Of each new token the old ones that are most like it. ids (N, K); weights (N, K), which sum to 1 in each row."""

    ids: Tensor
    weights: Tensor


def nearest(new_ND: Tensor, old_VD: Tensor, old_ids: Sequence[int], count: int) -> Neighbours:
    """The `count` old tokens with the largest cosines. Those at a right angle or beyond have no weight; if none is
    nearer, all have the same.
    """
    units_DV = nn.functional.normalize(old_VD.float(), dim=1).t()
    ids = torch.tensor(list(old_ids))
    found, weights = [], []
    for part in torch.split(nn.functional.normalize(new_ND.float(), dim=1), CHUNK):
        cosines, places = torch.topk(part @ units_DV, min(count, len(ids)), dim=1)
        positive = cosines.clamp(min=0).double()
        positive[positive.sum(1) == 0] = 1.0
        weights.append(positive / positive.sum(1, keepdim=True))
        found.append(ids[places])
    return Neighbours(torch.cat(found), torch.cat(weights))


def weighted(table_VC: Tensor, neighbours: Neighbours) -> Tensor:
    """(N, C): the weighted means of the neighbours' rows."""
    rows = [
        torch.einsum("nk,nkc->nc", weights, table_VC[ids].double())
        for ids, weights in zip(torch.split(neighbours.ids, CHUNK), torch.split(neighbours.weights, CHUNK), strict=True)
    ]
    return torch.cat(rows).to(table_VC.dtype)


@dataclass(frozen=True)
class Projection:
    """matrix (D, C): rows of theirs times it are rows of ours. explained: the share of the variance of shared rows that
    it accounts for (R²).
    """

    matrix: Tensor
    explained: float


def fit_projection(theirs_SD: Tensor, ours_SC: Tensor) -> Projection:
    """The matrix W that minimises ‖theirs · W − ours‖², of least norm where several do. In double precision.

    Directions in which the rows of theirs vary no more than by the rounding of single precision count as none.
    """
    theirs, ours = theirs_SD.double(), ours_SC.double()
    rounding = torch.finfo(torch.float32).eps * max(theirs.shape)
    matrix: Tensor = torch.linalg.lstsq(theirs, ours, rcond=rounding, driver="gelsd").solution
    rest = ((theirs @ matrix - ours) ** 2).sum()
    whole = ((ours - ours.mean(0)) ** 2).sum()
    return Projection(matrix, float(1 - rest / whole) if whole > 0 else 1.0)


def projected(theirs_ND: Tensor, projection: Projection) -> Tensor:
    """(N, C)."""
    return (theirs_ND.double() @ projection.matrix).float()
