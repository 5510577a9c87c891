"""Where a document is held, and which checkpoints have seen it: the forward question, asked of a store.

    <store>/mixtures/<name>/                       which streams hold it
    <store>/runs/<run>/checkpoints/<step>/         how often each checkpoint has read it

A checkpoint answers from its own order record, up to its own step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from manifest.artifact import Opened, open_artifact, open_streams, read_manifest, resolve
from manifest.checkpoint import Checkpoint, Timeline
from manifest.corpus import TokenStream
from manifest.errors import NotAnArtifact, WrongArtifact
from manifest.exposure import Exposure, exposures
from manifest.identity import content_hash, short
from manifest.mixture import Mixture
from manifest.pack import KIND, open_referred_pack, tokens_id
from manifest.packed import AnyStream, with_packs
from manifest.report import Report
from manifest.store import Store, open_store


@dataclass(frozen=True)
class Holding:
    """A mixture, and how many tokens of the document each of its streams holds; none if it is in no stream."""

    mixture: str
    id: str
    uri: str
    streams: dict[str, int]


@dataclass(frozen=True)
class PhaseReads:
    """How often a phase has read the document: in windows, and in tokens of it; steps count from 0."""

    phase: str
    mixture: str
    first_step: int
    last_step: int
    windows: int
    tokens: int


@dataclass(frozen=True)
class CheckpointReads:
    """How often a checkpoint has seen the document: in no window if windows is 0."""

    uri: str
    step: int
    windows: int
    tokens: int


@dataclass(frozen=True)
class RunReads:
    """A run. The phases are those of its last checkpoint."""

    run: str
    phases: tuple[PhaseReads, ...]
    checkpoints: tuple[CheckpointReads, ...]


@dataclass(frozen=True)
class Sightings:
    """All that is known of a document in the given place."""

    document: str
    mixtures: tuple[Holding, ...]
    runs: tuple[RunReads, ...]


@dataclass(frozen=True)
class _Source:
    """An opened mixture with its streams, by name."""

    opened: Opened
    mixture: Mixture
    streams: dict[str, TokenStream]

    def by_tokens(self) -> dict[str, TokenStream]:
        """The streams by the id of their tokens artifact."""
        return {self.mixture.streams[name].id: stream for name, stream in self.streams.items()}


@dataclass(frozen=True)
class _Place:
    """The mixtures and packs (by id) and the checkpoints (by run and step) that a question is asked of."""

    mixtures: dict[str, _Source]
    packs: dict[str, Opened]
    checkpoints: tuple[tuple[str, Checkpoint], ...]


def sightings_of_document(uri: str | Path, document_id: str) -> Sightings:
    """Asks a store, a checkpoint, a report (its checkpoints) or a mixture about a document.

    Raises NotAnArtifact if there is nothing to ask, WrongArtifact if a mixture is not the one trained on.
    """
    return _sightings(_place(uri), document_id)


def sightings_of_text(uri: str | Path, text: str) -> tuple[Sightings, ...]:
    """As above for every document with this text, among those whose id is made of their content.

    If there is none, one answer that no stream holds it. The text is as normalised, not as in the raw file.
    """
    place, digest = _place(uri), content_hash(text)
    found = {
        document
        for source in place.mixtures.values()
        for stream in source.streams.values()
        for document in stream.find_content(digest)
    }
    return tuple(_sightings(place, document) for document in sorted(found) or [f"*/{digest}"])


def _sightings(place: _Place, document_id: str) -> Sightings:
    holdings = tuple(_holding(source, document_id) for source in place.mixtures.values())
    by_run = groupby(place.checkpoints, key=lambda pair: pair[1].run)
    runs = tuple(_run_reads(run, list(pairs), place, document_id) for run, pairs in by_run)
    return Sightings(document_id, holdings, runs)


def _holding(source: _Source, document_id: str) -> Holding:
    spans = {name: stream.find(document_id) for name, stream in source.streams.items()}
    tokens = {name: span.stop - span.start for name, span in spans.items() if span is not None}
    return Holding(source.mixture.name, source.mixture.id, source.opened.uri, tokens)


def _run_reads(run: str, checkpoints: Sequence[tuple[str, Checkpoint]], place: _Place, document_id: str) -> RunReads:
    known: dict[Timeline, list[Exposure]] = {}  # most checkpoints of a run share one
    reads: list[CheckpointReads] = []
    seen: list[Exposure] = []
    for uri, checkpoint in checkpoints:
        timeline = checkpoint.timeline
        if timeline not in known:
            known[timeline] = list(exposures(timeline, _streams(place, checkpoint), document_id))
        seen = [exposure for exposure in known[timeline] if exposure.step < checkpoint.step]
        reads.append(CheckpointReads(uri, checkpoint.step, len(seen), sum(e.tokens for e in seen)))
    return RunReads(run, tuple(_phase_reads(seen, place)), tuple(reads))


def _phase_reads(seen: Sequence[Exposure], place: _Place) -> Iterator[PhaseReads]:
    for _, group in groupby(seen, key=lambda exposure: exposure.segment):
        windows = list(group)
        first = windows[0]
        yield PhaseReads(
            phase=first.phase,
            mixture=place.mixtures[first.mixture].mixture.name,
            first_step=first.step,
            last_step=windows[-1].step,
            windows=len(windows),
            tokens=sum(window.tokens for window in windows),
        )


def _streams(place: _Place, checkpoint: Checkpoint) -> dict[str, AnyStream]:
    """The streams of a checkpoint's mixtures, by the id of their tokens artifact, and of its packs, by theirs."""
    read = {segment.mixture for segment in checkpoint.timeline.order.segments}
    sources = [place.mixtures[mixture] for mixture in sorted(read)]
    packs = [place.packs[reference.id] for reference in checkpoint.inputs.values() if reference.kind == KIND]
    found: dict[str, AnyStream] = {}
    for source in sources:
        plain = source.by_tokens()
        found |= plain
        found |= with_packs(plain, [p for p in packs if tokens_id(p) in plain], source.mixture.tokenizer.end_of_text)
    return found


def _place(uri: str | Path) -> _Place:
    mixtures, checkpoints = _named_by(uri)
    sources = {source.mixture.id: source for source in map(_open_mixture, mixtures)}
    packs: dict[str, Opened] = {}
    for where, checkpoint in checkpoints:
        for reference in checkpoint.inputs.values():
            if reference.kind == "mixture" and reference.id not in sources:
                sources[reference.id] = _open_mixture(resolve(where, reference.uri), reference.id)
            if reference.kind == KIND and reference.id not in packs:
                packs[reference.id] = open_referred_pack(where, reference)
        for segment in checkpoint.timeline.order.segments:
            if segment.mixture not in sources:
                raise WrongArtifact(
                    f"{where} was trained on mixture {short(segment.mixture)}, which is not among its inputs; "
                    "give the store that has it"
                )
    if not sources:
        raise NotAnArtifact(f"{uri} holds no mixture and no checkpoint; give the store that has them")
    return _Place(sources, packs, tuple(sorted(checkpoints, key=lambda pair: (pair[1].run, pair[1].step))))


def _open_mixture(uri: str, expected: str | None = None) -> _Source:
    opened = open_artifact(uri, "mixture")
    assert isinstance(opened.manifest, Mixture)
    if expected is not None and opened.manifest.id != expected:
        raise WrongArtifact(
            f"{uri} has id {short(opened.manifest.id)}, but the checkpoint was trained on {short(expected)}; restore it"
        )
    return _Source(opened, opened.manifest, open_streams(opened))


Checkpoints = list[tuple[str, Checkpoint]]


def _named_by(uri: str | Path) -> tuple[list[str], Checkpoints]:
    """The URIs of mixtures, and the checkpoints, that `uri` stands for."""
    store = open_store(uri)
    if {"mixtures", "runs"} & set(store.folders("")):
        return _all_of(store)
    try:
        where, manifest = read_manifest(uri)
    except NotAnArtifact as error:
        raise NotAnArtifact(
            f"{uri} is no artifact and has no mixtures/ or runs/; give a store, a mixture, a checkpoint or a report"
        ) from error
    if isinstance(manifest, Mixture):
        return [where], []
    if isinstance(manifest, Checkpoint):
        return [], [(where, manifest)]
    if isinstance(manifest, Report):
        inputs = [ref for ref in manifest.inputs.values() if ref.kind == "checkpoint"]
        return [], [_read_checkpoint(resolve(where, reference.uri)) for reference in inputs]
    raise WrongArtifact(f"{where} is a {manifest.kind}; give a store, a mixture, a checkpoint or a report")


def _all_of(store: Store) -> tuple[list[str], Checkpoints]:
    mixtures = [store.where(f"mixtures/{name}") for name in store.list("mixtures")]
    places = [f"runs/{run}/checkpoints" for run in store.folders("runs")]
    return mixtures, [
        _read_checkpoint(store.where(f"{place}/{name}")) for place in places for name in store.list(place)
    ]


def _read_checkpoint(uri: str) -> tuple[str, Checkpoint]:
    where, manifest = read_manifest(uri, "checkpoint")
    assert isinstance(manifest, Checkpoint)
    return where, manifest


def describe(sightings: Sightings) -> str:
    """The answer as text."""
    return "\n".join([f"document {sightings.document}", *_lines(sightings)])


def _lines(sightings: Sightings) -> Iterator[str]:
    for mixture in sightings.mixtures:
        held = ", ".join(f"{name} ({tokens} tokens)" for name, tokens in mixture.streams.items())
        where = f"stream {held}" if held else "no stream"
        yield f"  in {where} of mixture {mixture.mixture} {short(mixture.id)}"
    for run in sightings.runs:
        yield f"run {run.run}"
        for phase in run.phases:
            yield (
                f"  phase {phase.phase} of {phase.mixture}: steps {phase.first_step}–{phase.last_step}, "
                f"{phase.windows} windows, {phase.tokens} tokens"
            )
        for reads in run.checkpoints:
            seen = f"{reads.windows} windows, {reads.tokens} tokens" if reads.windows else "has not seen it"
            yield f"  checkpoint at step {reads.step}: {seen}"
    if not any(mixture.streams for mixture in sightings.mixtures):
        yield (
            "  no mixture trains on this document: it may be held out, removed (ledger/ names the survivor that "
            "was read in its place), or misspelt"
        )
