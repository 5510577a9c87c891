"""Step → the tokens that this rank learns from. The loader's whole state is the number of the step.

    timeline ──► windows of the step ──► this rank's share ──► tokens (N, T)

Every rank gets ⌈windows / world⌉ rows. Where its share is one shorter, the last row is padding of weight 0, so all
ranks run the same number of micro-batches. The loss of a step is the sum over its targets divided by the sum of their
weights on all ranks, so the gradient does not depend on how the windows are dealt out.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from manifest.artifact import Opened, open_streams
from manifest.checkpoint import Timeline
from manifest.errors import CorruptArtifact
from manifest.mixture import Mixture
from trainer.data.fim import COUNTS
from trainer.data.views import Reader, Reading, open_reader, reading
from trainer.data.windows import windows
from trainer.recipe import PhaseRecipe

PADDING = -1
"""The view of a padding row."""


@dataclass(frozen=True)
class StepBatch:
    """What one rank reads in one step: N rows of T = seq_len tokens, with T − 1 targets in each.

    tokens (N, T). weights (N, T − 1): 1 where token t + 1 of a row is learned, 0 where it is not, as in padding. views
    (N,): indices into `StepSource.views`, or PADDING. fim (N, ·): what fill-in-the-middle did, as in `fim.COUNTS`.
    documents (N, T): the document within its row that each token is of, where none may see another; else None.
    """

    step: int
    segment: int
    tokens: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    views: npt.NDArray[np.int64]
    fim: npt.NDArray[np.int64]
    documents: npt.NDArray[np.int32] | None = None


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
        tokens_NT = np.zeros((rows, seq_len), np.int64)
        weights_NT = np.zeros((rows, seq_len - 1), np.float32)
        documents_NT = np.zeros((rows, seq_len), np.int32) if how.documents else None
        view_N = np.full(rows, PADDING, np.int64)
        fim_NC = np.zeros((rows, len(COUNTS)), np.int64)
        for n, window in enumerate(windows(self.timeline, whole.segment, own)):
            row = self.reader.row(window, how)
            tokens_NT[n], weights_NT[n], fim_NC[n] = row.tokens, row.weights, row.counts
            view_N[n] = self.views.index(window.view)
            if documents_NT is not None:
                documents_NT[n] = row.documents
        return StepBatch(step, whole.segment, tokens_NT, weights_NT, view_N, fim_NC, documents_NT)


def step_source(
    mixture: Opened,
    timeline: Timeline,
    *,
    rank: int,
    world: int,
    phases: Mapping[str, PhaseRecipe] | None = None,
) -> StepSource:
    """A source over an opened mixture. phases: how each is read (default: every token is learned).

    Raises ArtifactError if its streams, or a tokenizer that its views need, are not what they were.
    """
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    opened = open_streams(mixture)
    streams = {manifest.streams[name].id: stream for name, stream in opened.items()}
    for draw in (draw for segment in timeline.order.segments for draw in segment.draws):
        if draw.stream_blocks != streams[draw.stream].blocks:
            raise CorruptArtifact(
                f"mixture {mixture.uri}: the shards of view {draw.view} hold {streams[draw.stream].blocks} blocks; the "
                f"order was made over {draw.stream_blocks}. Restore the stream, or build the mixture again"
            )
    readings = tuple(reading(phases[s.phase]) if phases else Reading() for s in timeline.order.segments)
    reader = open_reader(mixture, timeline, streams)
    return StepSource(timeline, reader, readings, view_names(timeline), rank, world)


def view_names(timeline: Timeline) -> tuple[str, ...]:
    """The views that a run reads, in order of name."""
    return tuple(sorted({draw.view for segment in timeline.order.segments for draw in segment.draws}))


@contextmanager
def prefetched(source: StepSource, first: int, stop: int, *, depth: int = 4) -> Iterator[Iterator[StepBatch]]:
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
    source: StepSource,
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
