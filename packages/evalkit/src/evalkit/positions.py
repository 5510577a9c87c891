"""Checkpoints → their loss by position in a window, out to lengths that they were not trained on.

A decoder with ALiBi is measured plain, and, where asked, with position interpolation (Al-Khateeb et al., 2023): for
windows longer than those it was trained on, slopes are divided by length / trained length. That acts on the whole
window, so there is a curve for each such length. Plain, one is enough, for a decoder is causal: what it says of a short
window it says of the beginning of a longer one. All curves are over the same windows, cut to their length.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from dataproc import progress
from evalkit.buckets import Bucket, buckets
from evalkit.checkpoint import Subject
from evalkit.intervals import CONFIDENCE, FEW, RESAMPLES
from evalkit.tasks.bits_per_byte import require_vocabulary
from evalkit.tasks.loss_by_position import Curve, Sums, curves, document_sums, position_nats
from evalkit.texts import Texts, long_texts
from manifest.checkpoint import Checkpoint
from manifest.errors import RecipeError, WrongArtifact
from manifest.record import Model
from trainer.checkpoint import load_model
from trainer.model.decoder import Decoder
from trainer.model.shape import Interpolation, Shape


class Measured(Model):
    """A checkpoint that was measured. trained_length: tokens of the longest windows that it has trained on."""

    id: str
    run: str
    step: int
    parameters: int
    trained_length: int


class Positions(Model):
    """What `evalkit positions` finds out. heldout: the id of the documents' artifact; sources: documents of each."""

    checkpoints: dict[str, Measured]
    heldout: str
    lengths: tuple[int, ...]
    documents: int
    windows: int
    sources: dict[str, int]
    confidence: float = CONFIDENCE
    resamples: int = RESAMPLES
    buckets: tuple[Bucket, ...]
    curves: tuple[Curve, ...]

    @property
    def few(self) -> bool:
        """Whether ranges of the documents' values stand in place of intervals."""
        return self.documents < FEW


@dataclass(frozen=True)
class Options:
    """lengths: tokens of windows, from the shortest; none: 1, 2 and 4 times the longest trained.

    limit: documents per source, at most. windows: of each document, at most. batch_tokens: tokens in a model at once.
    """

    lengths: tuple[int, ...] = ()
    interpolate: bool = False
    limit: int | None = 100
    windows: int = 4
    batch_tokens: int = 8192


def measure(subjects: Mapping[str, Subject], options: Options) -> Positions:
    """The losses of checkpoints, by their labels.

    Raises:
        WrongArtifact: the checkpoints have different held-out documents or tokenizers, or no document is long enough.
        RecipeError: a length or an interpolation that a checkpoint cannot do.
    """
    trained = {label: trained_length(subject.record) for label, subject in subjects.items()}
    lengths = options.lengths or tuple(max(trained.values()) * times for times in (1, 2, 4))
    _require(subjects, trained, lengths, interpolate=options.interpolate)
    first = next(iter(subjects.values()))
    texts = long_texts(first, lengths[-1], limit=options.limit, windows=options.windows)
    made = buckets(lengths[-1], {*lengths, *trained.values()})
    extended = {label: [n for n in lengths if options.interpolate and n > trained[label]] for label in subjects}
    found = (
        sums
        for label, subject in subjects.items()
        for sums in _sums(label, subject, trained[label], [lengths[-1], *extended[label]], texts, made, options)
    )
    total = sum(1 + len(longer) for longer in extended.values())
    return Positions(
        checkpoints={label: _measured(subject, trained[label]) for label, subject in subjects.items()},
        heldout=first.heldout.manifest.id,
        lengths=lengths,
        documents=texts.documents,
        windows=len(texts.tokens),
        sources=texts.sources,
        buckets=made,
        curves=curves(list(progress.track(found, label="curves", total=total)), texts.document, made),
    )


def trained_length(record: Checkpoint) -> int:
    """Tokens of the longest windows of the phases that a checkpoint has begun; of the first, if it is untrained."""
    return max(pace.seq_len for pace in record.timeline.paces if pace.first_step < max(record.step, 1))


def _sums(
    label: str,
    subject: Subject,
    trained: int,
    lengths: list[int],
    texts: Texts,
    made: tuple[Bucket, ...],
    options: Options,
) -> Iterator[Sums]:
    """At the first length plain, at the others interpolated."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    decoder: Decoder = load_model(subject.checkpoint.uri)[0].to(device)
    require_vocabulary(decoder, subject)
    for index, length in enumerate(lengths):
        if index:
            decoder.interpolation = Interpolation(trained_length=trained)
        windows_WT = texts.tokens[:, :length]
        nats_WT = position_nats(decoder, windows_WT, batch_tokens=options.batch_tokens, device=device)
        nats_NK = document_sums(nats_WT, texts.document, [bucket for bucket in made if bucket.stop <= length])
        yield Sums(label, length, length / trained if index else 1.0, trained, nats_NK)


def _measured(subject: Subject, trained: int) -> Measured:
    record = subject.record
    return Measured(
        id=record.id, run=record.run, step=record.step, parameters=_shape(subject).parameters, trained_length=trained
    )


def _shape(subject: Subject) -> Shape:
    return Shape.model_validate(subject.record.state["model"])


def _require(
    subjects: Mapping[str, Subject], trained: Mapping[str, int], lengths: tuple[int, ...], *, interpolate: bool
) -> None:
    _require_one_heldout(subjects)
    for label, subject in subjects.items():
        _require_positions(label, _shape(subject), lengths[-1])
        if interpolate:
            _require_slopes(label, _shape(subject))
    shortest = min(trained.values())
    if interpolate and lengths[-1] <= shortest:
        raise RecipeError(
            f"--interpolate: windows of {lengths[-1]:,} tokens are no longer than the {shortest:,} that were trained, "
            "so there is nothing to interpolate; give --lengths a longer one"
        )


def _require_one_heldout(subjects: Mapping[str, Subject]) -> None:
    """Raises WrongArtifact unless all checkpoints have the same held-out documents and tokens."""
    (label, first), *others = subjects.items()
    for other, subject in others:
        same_text = subject.heldout.manifest.id == first.heldout.manifest.id
        if same_text and subject.mixture_record.tokenizer.digest == first.mixture_record.tokenizer.digest:
            continue
        raise WrongArtifact(
            f"{other} and {label} have different {'tokenizers' if same_text else 'held-out documents'}, so their "
            "losses would be over different tokens; give checkpoints of one mixture, or measure them one by one"
        )


def _require_positions(label: str, shape: Shape, longest: int) -> None:
    """Raises RecipeError if a decoder has learned fewer positions than a window has to read."""
    limit = shape.architecture.max_positions
    if limit is not None and longest - 1 > limit:
        raise RecipeError(
            f"--lengths {longest}: {label} has learned {limit:,} positions, and knows none beyond them; give "
            f"lengths up to {limit + 1:,}"
        )


def _require_slopes(label: str, shape: Shape) -> None:
    """Raises RecipeError if there are no slopes to interpolate, or they are interpolated already."""
    kind = shape.architecture
    if kind.position != "alibi":
        raise RecipeError(
            f"--interpolate: {label} has `position: {kind.position}`, and interpolation is of ALiBi's slopes; leave it "
            "out, or measure that checkpoint by itself"
        )
    if kind.interpolation is not None:
        raise RecipeError(f"--interpolate: {label} interpolates as it is, and is measured so; leave --interpolate out")
