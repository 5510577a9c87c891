"""Bits per byte of held-out documents: how well the model compresses text that it was not trained on.

    held-out documents ──tokenizer──► tokens ──scorer──► rows (id, source, bytes, tokens, bits) ──► scores

Σ bits / Σ UTF-8 bytes, per source and over all: a number that does not depend on the tokenizer, so models with
different vocabularies can be compared. 8 is no compression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

import numpy as np
import pyarrow as pa
import torch

from dataproc import progress
from dataproc.vocab.files import load
from evalkit import heldout, scorer
from evalkit.checkpoint import Subject
from evalkit.heldout import Document
from evalkit.intervals import CONFIDENCE, FEW, Floats, middle, resampled_sums
from evalkit.recipe import BITS_PER_BYTE
from manifest.errors import WrongArtifact
from manifest.identity import hash64
from manifest.report import Score
from trainer.checkpoint import load_model
from trainer.model.decoder import Decoder

ROWS = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("bytes", pa.int64()),
        ("tokens", pa.int64()),
        ("bits", pa.float64()),
    ]
)
ALL = "all sources"
"""The `source` of the score over everything; no source has such a name, for it has a space."""

Ratio = Callable[[Floats], Floats]
"""Columns (…, D): bits, bytes, perhaps another model's bits → a value of each row."""

DIFFERENCE = "difference"
"""The metric of a paired difference to another model's score."""

PIECE_BYTES_PER_TOKEN = 16  # about four batches at four bytes a token: sorted by length, and a step of the progress


def rows(subject: Subject, chosen: Mapping[str, int], *, batch_tokens: int) -> pa.Table:
    """Scores the chosen held-out documents (id → bytes): a row (ROWS) for each, in the artifact's order.

    Raises ArtifactError if the checkpoint cannot be loaded or knows too few tokens.
    """
    model, _ = load_model(subject.checkpoint.uri)
    require_vocabulary(model, subject)
    documents = heldout.documents(subject.heldout, chosen)
    sizes = heldout.pieces(chosen, batch_tokens * PIECE_BYTES_PER_TOKEN)
    found = _scored(subject, model, (list(islice(documents, size)) for size in sizes), batch_tokens)
    tracked = progress.track(found, label="held-out text", total=len(sizes))
    return pa.Table.from_pylist([row for piece in tracked for row in piece], schema=ROWS)


def require_vocabulary(model: Decoder, subject: Subject) -> None:
    """Raises WrongArtifact if a model knows fewer tokens than the tokenizer of its mixture has."""
    has, needed = model.shape.vocab_size, subject.mixture_record.tokenizer.vocab_size
    if has < needed:
        raise WrongArtifact(
            f"{subject.checkpoint.uri} knows {has} tokens, but the tokenizer of {subject.mixture.uri} has {needed}; "
            "score a checkpoint that was trained on this mixture"
        )


def _scored(
    subject: Subject, model: Decoder, pieces: Iterable[list[Document]], batch_tokens: int
) -> Iterator[list[dict[str, object]]]:
    encoder = load(subject.tokenizer.directory)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    for documents in pieces:
        tokens = [encoder.encode(document.text, add_special_tokens=False).ids for document in documents]
        bits_N = scorer.document_bits(
            model,
            tokens,
            end_of_text=subject.mixture_record.tokenizer.end_of_text,
            window=subject.window,
            batch_tokens=batch_tokens,
            device=device,
        )
        yield [
            {
                "id": document.id,
                "source": document.source,
                "bytes": len(document.text.encode("utf-8")),
                "tokens": len(encoded),
                "bits": float(bits),
            }
            for document, encoded, bits in zip(documents, tokens, bits_N, strict=True)
        ]


def scores(found: pa.Table) -> list[Score]:
    """The scores of some rows: over all, then per source."""
    return _scores(found, [], BITS_PER_BYTE, _bits_per_byte)


def differences(found: pa.Table, compared_N: Floats) -> list[Score]:
    """The difference to another model, in the order of `scores`; below 0, ours needs fewer bits.

    compared_N: the bits that the other model needs for the same rows. The interval is paired.
    """
    return _scores(found, [compared_N], DIFFERENCE, _difference)


def _scores(found: pa.Table, more: list[Floats], metric: str, ratio: Ratio) -> list[Score]:
    columns = [found["bits"].to_numpy(), found["bytes"].to_numpy().astype(np.float64), *more]
    values_ND = np.stack(columns, axis=1)
    source_N = np.array(found["source"].to_pylist())
    groups = {name: values_ND[source_N == name] for name in sorted(set(source_N.tolist()))}
    sums = {
        name: resampled_sums(group, seed=hash64(f"bootstrap/{BITS_PER_BYTE}/{name}")) for name, group in groups.items()
    }
    # Each source is resampled by itself, so the sources' shares of the whole stay as they are.
    whole = _score(ALL, metric, ratio, values_ND, np.sum(list(sums.values()), axis=0))
    return [whole, *(_score(name, metric, ratio, group, sums[name]) for name, group in groups.items())]


def _score(source: str, metric: str, ratio: Ratio, values_ND: Floats, sums_RD: Floats) -> Score:
    per_document = ratio(values_ND)
    few = len(values_ND) < FEW
    low, high = (float(per_document.min()), float(per_document.max())) if few else middle(ratio(sums_RD))
    return Score(
        task=BITS_PER_BYTE,
        source=source,
        metric=metric,
        value=float(ratio(values_ND.sum(axis=0))),
        low=low,
        high=high,
        confidence=CONFIDENCE,
        count=len(values_ND),
        unit="documents",
        higher_is_better=False,
    )


def _bits_per_byte(values_D: Floats) -> Floats:
    return np.asarray(values_D[..., 0] / values_D[..., 1])


def _difference(values_D: Floats) -> Floats:
    return np.asarray((values_D[..., 0] - values_D[..., 2]) / values_D[..., 1])
