"""Tokens of documents → the bits that a model needs for each document.

    document        e  t₁ t₂ t₃ t₄ t₅ t₆        e: end_of_text, as the document before it ended in training
    windows of 4    e→t₁ t₂ t₃
                             t₃→t₄ t₅ t₆        each begins with the last token of the one before

A window is as long as in training (seq_len tokens, of which the first is only read), so every token of a document is
predicted exactly once, from 1 to seq_len − 1 tokens before it, and no position is used that training did not use. The
closing end_of_text is not predicted: it stands for no byte. These are the disjoint windows of lm-evaluation-harness'
rolling log-likelihood. p is the model's softmax over all its rows, as in the training loss.

Shapes: B windows of a batch, T tokens, V rows of the embedding, N documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

Model = Callable[[Tensor], Tensor]
"""tokens_BT (int64) → logits_BTV; causal."""


@dataclass(frozen=True)
class Window:
    """Some tokens of a document. The first is read only, the others are predicted."""

    document: int
    tokens: Sequence[int]


def document_bits(
    model: Model,
    documents: Sequence[Sequence[int]],
    *,
    end_of_text: int,
    window: int,
    batch_tokens: int,
    device: torch.device | None = None,
) -> npt.NDArray[np.float64]:
    """(N,): −Σ log₂ p over the tokens of each document.

    window: tokens of a window, at least 2. batch_tokens: how many tokens go through the model at once (at least one
    window does); it changes the result to rounding only.
    """
    assert window >= 2, "a window needs a token to read and one to predict"
    bits_N = np.zeros(len(documents))
    # Longest first: windows of a batch are of like length, so little of it is padding.
    found = sorted(windows(documents, end_of_text, window), key=lambda w: (-len(w.tokens), w.document))
    for batch in batches(found, batch_tokens):
        for row, bits in zip(batch, _window_bits(model, batch, device), strict=True):
            bits_N[row.document] += bits
    return bits_N


def windows(documents: Sequence[Sequence[int]], end_of_text: int, window: int) -> Iterator[Window]:
    """The windows of documents, in order."""
    for number, tokens in enumerate(documents):
        sequence = [end_of_text, *tokens]
        for first in range(0, len(tokens), window - 1):
            yield Window(number, sequence[first : first + window])


def batches(found: Sequence[Window], batch_tokens: int) -> Iterator[Sequence[Window]]:
    """Windows, longest first, cut into batches of at most `batch_tokens` tokens with their padding."""
    first = 0
    while first < len(found):
        count = max(1, batch_tokens // len(found[first].tokens))
        yield found[first : first + count]
        first += count


@torch.inference_mode()
def _window_bits(model: Model, batch: Sequence[Window], device: torch.device | None) -> npt.NDArray[np.float64]:
    """(B,): the bits of each window."""
    lengths_B = torch.tensor([len(row.tokens) for row in batch])
    width = len(batch[0].tokens)
    # Padding is on the right, where a causal model's earlier predictions do not see it; its own are masked.
    tokens_BT = torch.tensor([[*row.tokens, *[row.tokens[0]] * (width - len(row.tokens))] for row in batch]).to(device)
    logits_BTV = model(tokens_BT[:, :-1]).float()
    nats_BT = functional.cross_entropy(logits_BTV.flatten(0, 1), tokens_BT[:, 1:].flatten(), reduction="none")
    real_BT = torch.arange(1, width) < lengths_B[:, None]
    nats_B = (nats_BT.reshape(len(batch), width - 1).double().cpu() * real_BT).sum(dim=1)
    bits_B: npt.NDArray[np.float64] = nats_B.numpy() / math.log(2)
    return bits_B
