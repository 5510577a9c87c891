"""Document → the windows that read it, and step → the documents that it reads. Arithmetic, no list as long as the data.

    document ──► its places on a stream ──► blocks ──order──► slots ──► windows that meet them ──► steps
    step ──► windows ──► slots ──order──► blocks ──► spans of documents

A window reads seq_len tokens and learns within them, so nothing outside a window is seen. A document is followed
through plain tokens: what a transform such as fill-in-the-middle cuts off at reading time is counted as read.
Windows of a step that was skipped are no exposure, as nothing was learned of them; `documents_of_step` lists them.
`streams` below maps the id of a tokens artifact to its stream, and that of a pack to the stream laid out in its bins.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from manifest.checkpoint import Timeline
from manifest.corpus import Span
from manifest.errors import WrongArtifact
from manifest.identity import short
from manifest.order import Read, read, reads_of_block
from manifest.packed import AnyStream


@dataclass(frozen=True)
class Exposure:
    """A window that reads `tokens` tokens of a document. `window` counts from the first of its segment."""

    segment: int
    phase: str
    mixture: str
    view: str
    slot: int
    window: int
    step: int
    tokens: int


@dataclass(frozen=True)
class WindowRead:
    """A window of a step: tokens [start, start + seq_len) of its stream, and the documents that they belong to.

    At the end of the stream it goes on at the start. `window` counts from the first of its segment. Of a pack, `stream`
    is the pack's id, `block` and `start` count its places, and the spans are those of the tokens that it lays out.
    """

    segment: int
    window: int
    slot: int
    view: str
    stream: str
    epoch: int
    block: int
    start: int
    seq_len: int
    spans: tuple[Span, ...]


def exposures(
    timeline: Timeline,
    streams: Mapping[str, AnyStream],
    document_id: str,
    until_step: int | None = None,
) -> Iterator[Exposure]:
    """Every window of steps < `until_step` (default: of all steps) that reads a document, in order of step.

    Raises WrongArtifact if the order reads a stream that is not in `streams`.
    """
    found: list[Exposure] = []
    for stream_id in _streams_read(timeline):
        stream = _stream(streams, stream_id)
        found += exposures_of_places(timeline, stream_id, stream, stream.places(document_id))
    found.sort(key=lambda exposure: (exposure.segment, exposure.window))
    return (exposure for exposure in found if until_step is None or exposure.step < until_step)


def documents_of_step(timeline: Timeline, streams: Mapping[str, AnyStream], step: int) -> Iterator[WindowRead]:
    """What a step reads, window by window. Raises IndexError beyond the last step, WrongArtifact as above."""
    windows = timeline.step(step)
    segment = timeline.order.segments[windows.segment]
    per_slot = timeline.windows_per_slot(windows.segment)
    reading = None
    for window in range(windows.first, windows.stop):
        slot, within = divmod(window, per_slot)
        if reading is None or reading.slot != segment.first_slot + slot:
            reading = read(timeline.order, segment.first_slot + slot)
        yield _window_read(timeline, _stream(streams, reading.stream), reading, window, within)


def _window_read(timeline: Timeline, stream: AnyStream, reading: Read, window: int, within: int) -> WindowRead:
    seq_len = timeline.paces[reading.segment].seq_len
    start = reading.block * stream.block_tokens + within * seq_len
    return WindowRead(
        segment=reading.segment,
        window=window,
        slot=reading.slot,
        view=reading.view,
        stream=reading.stream,
        epoch=reading.epoch,
        block=reading.block,
        start=start % stream.tokens,
        seq_len=seq_len,
        spans=tuple(stream.spans(start, seq_len)),
    )


def exposures_of_places(
    timeline: Timeline, stream_id: str, stream: AnyStream, places: Iterable[Span]
) -> Iterator[Exposure]:
    """Every window that reads these places of a stream, which lie apart, such as those of a document; in no order."""
    pieces: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for span in places:
        for block, first, stop in stream.occurrences(span):
            pieces[block].append((first, stop))
    for block, parts in pieces.items():
        for reading in reads_of_block(timeline.order, stream_id, block):
            yield from _exposures_in(timeline, reading, parts)


def _exposures_in(timeline: Timeline, reading: Read, parts: Sequence[tuple[int, int]]) -> Iterator[Exposure]:
    """The windows of a slot that meet `parts`, which are ranges of its block."""
    segment = timeline.order.segments[reading.segment]
    first_window = (reading.slot - segment.first_slot) * timeline.windows_per_slot(reading.segment)
    for within, tokens in _tokens_per_window(parts, timeline.paces[reading.segment].seq_len).items():
        step = timeline.step_of(reading.segment, first_window + within)
        if not timeline.learns(step):
            continue
        yield Exposure(
            segment=reading.segment,
            phase=segment.phase,
            mixture=segment.mixture,
            view=reading.view,
            slot=reading.slot,
            window=first_window + within,
            step=step,
            tokens=tokens,
        )


def _tokens_per_window(parts: Sequence[tuple[int, int]], seq_len: int) -> Counter[int]:
    counts: Counter[int] = Counter()
    for first, stop in parts:
        for within in range(first // seq_len, (stop - 1) // seq_len + 1):
            counts[within] += min(stop, (within + 1) * seq_len) - max(first, within * seq_len)
    return counts


def _streams_read(timeline: Timeline) -> list[str]:
    """The ids of all streams that the order reads, each once."""
    draws = (draw for segment in timeline.order.segments for draw in segment.draws)
    return list(dict.fromkeys(draw.stream for draw in draws))


def _stream(streams: Mapping[str, AnyStream], stream_id: str) -> AnyStream:
    if stream_id not in streams:
        raise WrongArtifact(
            f"the order reads the stream {short(stream_id)}, which none of the given mixtures has "
            f"(they have {', '.join(map(short, streams)) or 'none'}); give the mixtures that the run was trained on"
        )
    return streams[stream_id]
