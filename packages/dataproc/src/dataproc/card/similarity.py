"""How far the token distributions of streams are from each other: Kullback–Leibler divergence of their unigrams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from manifest.corpus import TokenStream

SAMPLE_TOKENS = 200_000_000
CHUNK_TOKENS = 1 << 22
PRIOR = 0.5
"""Added to every count, so that a token that one stream never has costs a finite number of bits (Jeffreys' prior)."""


def divergences(streams: Mapping[str, TokenStream], vocab_size: int) -> dict[str, dict[str, float]]:
    """KL(A ‖ B) in bits per token, for each stream A and each stream B: what coding A's tokens with B's frequencies
    costs over coding them with its own. It is not symmetric.

    KL(A ‖ B) = Σ p_A(t) · log2(p_A(t) / p_B(t)) over the vocabulary, p(t) = (count + ½) / (tokens + vocabulary / 2).
    """
    shares = {name: _shares(stream, vocab_size) for name, stream in streams.items()}
    return {
        a: {b: round(max(0.0, float(np.sum(p * np.log2(p / q)))), 4) for b, q in shares.items()}
        for a, p in shares.items()
    }


def _shares(stream: TokenStream, vocab_size: int) -> npt.NDArray[np.float64]:
    counts = np.zeros(vocab_size, np.int64)
    for start, length in _chunks(stream.tokens):
        counts += np.bincount(stream.read(start, length), minlength=vocab_size)
    smoothed = counts + PRIOR
    return np.asarray(smoothed / smoothed.sum())


def _chunks(tokens: int) -> Iterator[tuple[int, int]]:
    """All of a stream, or evenly spaced parts: documents lie in order of a hash, so each part is a fair sample."""
    count = -(-tokens // CHUNK_TOKENS)
    every = max(1, -(-tokens // SAMPLE_TOKENS))
    for index in range(0, count, every):
        start = index * CHUNK_TOKENS
        yield start, min(CHUNK_TOKENS, tokens - start)
