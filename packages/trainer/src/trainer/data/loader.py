"""Step → the tokens that this rank learns from. The loader's whole state is the number of the step.

    timeline ──► windows of the step ──► this rank's share ──► tokens (N, T)

Every rank gets ⌈windows / world⌉ rows. Where its share is one shorter, the last row is padding of weight 0, so all
ranks run the same number of micro-batches. The loss of a step is the sum over its targets divided by the sum of their
weights on all ranks, so the gradient does not depend on how the windows are dealt out.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt

from manifest.artifact import Opened, open_streams
from manifest.checkpoint import Timeline
from manifest.corpus import PADDING as NO_DOCUMENT
from manifest.errors import CorruptArtifact
from manifest.mixture import Mixture
from manifest.pack import tokens_id
from manifest.packed import AnyStream, with_packs
from manifest.reads import Pages
from trainer.data.fim import COUNTS
from trainer.data.views import Reader, Reading, Row, open_reader, reading
from trainer.data.windows import stretches
from trainer.recipe import PhaseRecipe

PADDING = -1
"""The view of a padding row."""


@dataclass(frozen=True)
class StepBatch:
    """What one rank reads in one step: N rows of T = seq_len tokens, with T − 1 targets in each.

    tokens (N, T). weights (N, T − 1), read-only where all are 1: 1 where token t + 1 of a row is learned, 0 where it is
    not, as in padding. views (N,): indices into `StepSource.views`, or PADDING. fim (N, ·): what fill-in-the-middle
    did, as in `fim.COUNTS`.
    documents (N, T): the document within its row that each token is of, where none may see another; else None. What is
    of none, in a window that documents do not fill, is `manifest.corpus.PADDING`.
    """

    step: int
    segment: int
    tokens: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    views: npt.NDArray[np.int64]
    fim: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int32] | None = None

    @property
    def padding(self) -> int:
        """Tokens that are of no document, in the windows of the rank."""
        return 0 if self.documents is None else int((self.documents == NO_DOCUMENT).sum())


class Readable(Protocol):
    """What reads steps, by their number."""

    def read(self, step: int) -> StepBatch: ...


@dataclass(frozen=True)
class StepSource:
    """Reads steps for one rank. `views` in order of name; `readings` by segment of the timeline."""

    timeline: Timeline
    reader: Reader
    readings: tuple[Reading, ...]
    views: tuple[str, ...]
    rank: int
    world: int

    def read(self, step: int) -> StepBatch:
        """The rank's part of a step. Raises IndexError beyond the last step, CorruptArtifact for an unknown token."""
        whole = self.timeline.step(step)
        own = whole.part(self.rank, self.world)
        how = self.readings[whole.segment]
        seq_len = self.timeline.paces[whole.segment].seq_len
        rows = -(-(whole.stop - whole.first) // self.world)
        batch = _blank(step, whole.segment, rows, seq_len, documents=how.documents)
        tokens, views, at = batch.tokens.reshape(-1), batch.views, 0
        for stretch in stretches(self.timeline, self._pages, whole.segment, own):
            stop = at + stretch.rows
            views[at:stop] = self._view_numbers[stretch.view]
            if not (how.plain and self.reader.plain(stretch, tokens[at * seq_len : stop * seq_len])):
                batch = _weighted(batch)
                for n, window in enumerate(stretch.windows(), at):
                    _set_row(batch, n, self.reader.row(window, how))
            at = stop
        if at < rows:
            batch = _weighted(batch)
            batch.tokens[at:] = batch.weights[at:] = 0
        return batch

    @cached_property
    def _pages(self) -> Pages:
        return Pages(self.timeline.order)

    @cached_property
    def _view_numbers(self) -> dict[str, int]:
        return {view: number for number, view in enumerate(self.views)}


def _blank(step: int, segment: int, rows: int, seq_len: int, *, documents: bool) -> StepBatch:
    """A batch whose tokens are still to be written; all of them would be learned."""
    return StepBatch(
        step,
        segment,
        tokens=np.empty((rows, seq_len), np.int64),
        weights=_ones(rows, seq_len - 1),
        views=np.full(rows, PADDING, np.int64),
        fim=np.zeros((rows, len(COUNTS)), np.int64),
        documents=np.zeros((rows, seq_len), np.int32) if documents else None,
    )


@lru_cache(maxsize=8)
def _ones(rows: int, targets: int) -> npt.NDArray[np.float32]:
    """The weights of all batches in which everything is learned: to fill them takes a third of the time of a batch."""
    ones = np.ones((rows, targets), np.float32)
    ones.flags.writeable = False
    return ones


def _weighted(batch: StepBatch) -> StepBatch:
    """The batch with weights of its own."""
    return batch if batch.weights.flags.writeable else replace(batch, weights=batch.weights.copy())


def _set_row(batch: StepBatch, n: int, row: Row) -> None:
    batch.tokens[n], batch.weights[n], batch.fim[n] = row.tokens, row.weights, row.counts
    if batch.documents is not None:
        batch.documents[n] = row.documents


def step_source(
    mixture: Opened,
    timeline: Timeline,
    *,
    rank: int,
    world: int,
    phases: Mapping[str, PhaseRecipe] | None = None,
    packs: Sequence[Opened] = (),
) -> StepSource:
    """A source over an opened mixture, for the steps that read it. phases: how each is read (default: every token is
    learned). packs: of the run.

    Raises ArtifactError if its streams, or a tokenizer that its views need, are not what they were.
    """
    streams = order_streams(mixture, timeline, packs)
    for draw in (draw for segment in timeline.order.segments for draw in segment.draws if draw.stream in streams):
        if draw.stream_blocks != streams[draw.stream].blocks:
            raise CorruptArtifact(
                f"mixture {mixture.uri}: the shards of view {draw.view} hold {streams[draw.stream].blocks} blocks; the "
                f"order was made over {draw.stream_blocks}. Restore the stream, or build the mixture again"
            )
    readings = tuple(reading(phases[s.phase]) if phases else Reading() for s in timeline.order.segments)
    reader = open_reader(mixture, timeline, streams)
    return StepSource(timeline, reader, readings, view_names(timeline), rank, world)


def order_streams(mixture: Opened, timeline: Timeline, packs: Sequence[Opened]) -> dict[str, AnyStream]:
    """What the timeline reads of a mixture, by its ids in the order: streams, and those laid out by packs.

    packs: of the run; those of other mixtures are left out. Raises ArtifactError as `open_streams`, `open_pack` do.
    """
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    opened = open_streams(mixture)
    by_tokens = {manifest.streams[name].id: stream for name, stream in opened.items()}
    drawn = {stream: opened[name] for stream, name in drawn_streams(manifest, timeline).items()}
    # A pack may have been made over the same tokens under another id, of a mixture before this one.
    former = {tokens_id(pack): drawn[pack.manifest.id] for pack in packs if pack.manifest.id in drawn}
    streams = former | by_tokens | drawn
    own = [pack for pack in packs if tokens_id(pack) in streams]
    return with_packs(streams, own, manifest.tokenizer.end_of_text)


def drawn_streams(mixture: Mixture, timeline: Timeline) -> dict[str, str]:
    """What a mixture calls each stream, by tokens id in the order, that the timeline's segments draw from it."""
    own = (segment for segment in timeline.order.segments if segment.mixture == mixture.id)
    return {draw.stream: mixture.views[draw.view].stream for segment in own for draw in segment.draws}


def view_names(timeline: Timeline) -> tuple[str, ...]:
    """The views that a run reads, in order of name."""
    return tuple(sorted({draw.view for segment in timeline.order.segments for draw in segment.draws}))


@contextmanager
def prefetched(source: Readable, first: int, stop: int, *, depth: int = 4) -> Iterator[Iterator[StepBatch]]:
    """The steps [first, stop), read ahead by a thread; at most `depth` of them wait. The thread ends with the block.

    What the thread raises is raised where the batch is taken.
    """
    ready: queue.Queue[StepBatch | BaseException] = queue.Queue(maxsize=depth)
    closing = threading.Event()
    reader = threading.Thread(
        target=_read_ahead, args=(source, first, stop, ready, closing), name="prefetch", daemon=True
    )
    reader.start()
    try:
        yield _take(ready, stop - first)
    finally:
        closing.set()
        reader.join()


def _read_ahead(
    source: Readable,
    first: int,
    stop: int,
    ready: queue.Queue[StepBatch | BaseException],
    closing: threading.Event,
) -> None:
    for step in range(first, stop):
        item: StepBatch | BaseException
        try:
            item = source.read(step)
        except BaseException as error:  # noqa: BLE001 - it is raised again by the thread that takes the batch
            item = error
        while not closing.is_set():
            try:
                ready.put(item, timeout=0.1)
                break
            except queue.Full:
                continue
        if closing.is_set() or isinstance(item, BaseException):
            return


def _take(ready: queue.Queue[StepBatch | BaseException], count: int) -> Iterator[StepBatch]:
    for _ in range(count):
        item = ready.get()
        if isinstance(item, BaseException):
            raise item
        yield item
