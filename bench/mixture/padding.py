"""The share of padding in windows that documents are packed into by best fit.

Over the streams of a mixture, if one is given, and over lengths that are drawn: log-normal with the median and the
spread (σ of the logarithm) of short answers, of answers with explanations, and of dialogues.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from manifest.artifact import open_artifact, open_streams
from manifest.bestfit import Ints, best_fit
from manifest.pack import document_starts

DOCUMENTS = 200_000
DRAWN = {
    "short answers": (60, 0.8),
    "explained answers": (250, 1.0),
    "dialogues": (700, 0.7),
}
SEQ_LENS = (2048, 4096)


def rows(mixture: str) -> list[dict[str, Any]]:
    """What is packed and how full it gets. mixture: its URI, or nothing."""
    return [_row(name, lengths, seq_len) for name, lengths in _lengths(mixture) for seq_len in SEQ_LENS]


def _lengths(mixture: str) -> Iterator[tuple[str, Ints]]:
    if mixture:
        for name, stream in open_streams(open_artifact(mixture, kind="mixture")).items():
            yield f"stream {name}", np.diff(document_starts(stream))
    for name, (median, spread) in DRAWN.items():
        drawn = np.random.default_rng(0).lognormal(np.log(median), spread, DOCUMENTS)
        yield f"{name}: drawn, median {median}, σ {spread}", np.maximum(drawn.astype(np.int64), 2)


def _row(name: str, lengths: Ints, seq_len: int) -> dict[str, Any]:
    began = time.process_time()
    bins = best_fit(lengths, seq_len)
    places = (len(bins.offsets) - 1) * seq_len
    return {
        "of": name,
        "documents": len(lengths),
        "seq_len": seq_len,
        "windows": len(bins.offsets) - 1,
        "padding": bins.padding / places,
        "one_each": 1 - int(lengths.sum()) / (int((-(-lengths // seq_len)).sum()) * seq_len),
        "longer": float((lengths > seq_len).mean()),
        "cpu_s": time.process_time() - began,
    }
