"""Bits per byte of held-out documents: how well the model compresses text that it was not trained on.

    held-out documents ──tokenizer──► tokens ──scorer──► rows (id, source, bytes, tokens, bits) ──► scores

Σ bits / Σ UTF-8 bytes, per source and over all: a number that does not depend on the tokenizer, so models with different
vocabularies can be compared. 8 is no compression.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import torch
from dataproc import progress
from dataproc.vocab import load
from manifest.errors import WrongArtifact
from manifest.identity import hash64
from manifest.report import Score
from trainer.checkpoint import load_model
from trainer.model.decoder import Decoder

from evalkit import heldout, scorer
from evalkit.checkpoint import Subject
from evalkit.heldout import Document
from evalkit.intervals import CONFIDENCE, FEW, Floats, middle, resampled_sums
from evalkit.recipe import BITS_PER_BYTE

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

DIFFERENCE = "difference"
"""The metric of the paired difference to the report that was compared with."""

CHUNK_BATCHES = 16  # documents are collected until they fill so many batches, then sorted by length


def rows(subject: Subject, chosen: frozenset[str], *, batch_tokens: int) -> pa.Table:
    """Scores the chosen held-out documents: a row (ROWS) for each, in the artifact's order.

    Raises ArtifactError if the checkpoint cannot be loaded or knows too few tokens.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, _ = load_model(subject.checkpoint.uri)
    _require_vocabulary(model, subject)
    model.to(device)
    scored = _scored(subject, model, chosen, device, batch_tokens)
    done = list(progress.track(scored, label="held-out documents", total=len(chosen)))
    return pa.Table.from_pylist(done, schema=ROWS)


def _require_vocabulary(model: Decoder, subject: Subject) -> None:
    has, needed = model.shape.vocab_size, subject.mixture_record.tokenizer.vocab_size
    if has < needed:
        raise WrongArtifact(
            f"{subject.checkpoint.uri} knows {has} tokens, but the tokenizer of {subject.mixture.uri} has {needed}; "
            "score a checkpoint that was trained on this mixture"
        )


def _scored(
    subject: Subject, model: Decoder, chosen: frozenset[str], device: torch.device, batch_tokens: int
) -> Iterator[dict[str, object]]:
    for documents, tokens in _encoded_chunks(subject, chosen, batch_tokens * CHUNK_BATCHES):
        bits_N = scorer.document_bits(
            model,
            tokens,
            end_of_text=subject.mixture_record.tokenizer.end_of_text,
            window=subject.window,
            batch_tokens=batch_tokens,
            device=device,
        )
        for document, encoded, bits in zip(documents, tokens, bits_N, strict=True):
            yield {
                "id": document.id,
                "source": document.source,
                "bytes": len(document.text.encode("utf-8")),
                "tokens": len(encoded),
                "bits": float(bits),
            }


def _encoded_chunks(
    subject: Subject, chosen: frozenset[str], chunk_tokens: int
) -> Iterator[tuple[list[Document], list[list[int]]]]:
    """Documents with their tokens, encoded as for training, until they hold `chunk_tokens`."""
    encoder = load(subject.tokenizer.directory)
    documents: list[Document] = []
    tokens: list[list[int]] = []
    size = 0
    for document in heldout.documents(subject.heldout, chosen):
        documents.append(document)
        tokens.append(encoder.encode(document.text, add_special_tokens=False).ids)
        size += len(tokens[-1])
        if size >= chunk_tokens:
            yield documents, tokens
            documents, tokens, size = [], [], 0
    if documents:
        yield documents, tokens


def scores(found: pa.Table, compared: Floats | None = None) -> list[Score]:
    """The scores of some rows: over all, then per source; then, with `compared`, the differences in the same order.

    compared: (N,) the bits that another model needs for the same rows. A difference below 0 is better than the other.
    """
    columns = [found["bits"].to_numpy(), found["bytes"].to_numpy().astype(np.float64)]
    if compared is not None:
        columns.append(compared)
    values_ND = np.stack(columns, axis=1)
    source_N = np.array(found["source"].to_pylist())
    groups = {name: values_ND[source_N == name] for name in sorted(set(source_N.tolist()))}
    sums = {
        name: resampled_sums(group, seed=hash64(f"bootstrap/{BITS_PER_BYTE}/{name}")) for name, group in groups.items()
    }
    # Each source is resampled by itself, so the sources' shares of the whole stay as they are.
    groups, sums = {ALL: values_ND, **groups}, {ALL: np.sum(list(sums.values()), axis=0), **sums}
    made = [_score(name, BITS_PER_BYTE, _bits_per_byte, groups, sums) for name in groups]
    if compared is not None:
        made += [_score(name, DIFFERENCE, _difference, groups, sums) for name in groups]
    return made


def _score(
    source: str,
    metric: str,
    ratio: Callable[[Floats], Floats],
    groups: Mapping[str, Floats],
    sums: Mapping[str, Floats],
) -> Score:
    values_ND = groups[source]
    per_document = ratio(values_ND)
    few = len(values_ND) < FEW
    low, high = (float(per_document.min()), float(per_document.max())) if few else middle(ratio(sums[source]))
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
    """Columns (…, D) bits, bytes, compared bits → bits per byte."""
    return np.asarray(values_D[..., 0] / values_D[..., 1])


def _difference(values_D: Floats) -> Floats:
    return np.asarray((values_D[..., 0] - values_D[..., 2]) / values_D[..., 1])
