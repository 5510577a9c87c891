"""Step → the tokens that this rank learns from. The loader's whole state is the number of the step.

    timeline ──► windows of the step ──► this rank's share ──► tokens (N, T)

Every rank gets ⌈windows / world⌉ rows. Where its share is one shorter, the last row is padding of weight 0, so all
ranks run the same number of micro-batches. The loss of a step is the sum over its targets divided by their number on
all ranks, so the gradient does not depend on how the windows are dealt out.
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
from manifest.corpus import TokenStream
from manifest.errors import CorruptArtifact
from manifest.mixture import Mixture
from trainer.data.windows import windows

PADDING = -1
"""The view of a padding row."""


@dataclass(frozen=True)
class StepBatch:
    """What one rank reads in one step: N rows of T = seq_len tokens, with T − 1 targets in each.

    tokens (N, T). weights (N,): 1, or 0 for padding. views (N,): indices into `StepSource.views`, or PADDING. targets:
    how many the whole step has, on all ranks.
    """

    step: int
    segment: int
    tokens: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    views: npt.NDArray[np.int64]
    targets: int


@dataclass(frozen=True)
class StepSource:
    """Reads steps for one rank. `streams` by tokens id; `views` in order of name."""

    timeline: Timeline
    streams: Mapping[str, TokenStream]
    views: tuple[str, ...]
    rank: int
    world: int
    vocab_size: int

    def read(self, step: int) -> StepBatch:
        """The rank's part of a step. Raises IndexError beyond the last step, CorruptArtifact for an unknown token."""
        whole = self.timeline.step(step)
        own = whole.part(self.rank, self.world)
        seq_len = self.timeline.paces[whole.segment].seq_len
        rows = -(-(whole.stop - whole.first) // self.world)
        tokens_NT = np.zeros((rows, seq_len), np.int64)
        weight_N = np.zeros(rows, np.float32)
        view_N = np.full(rows, PADDING, np.int64)
        for row, window in enumerate(windows(self.timeline, whole.segment, own)):
            tokens_NT[row] = self.streams[window.stream].read(window.start, window.length)
            if tokens_NT[row].max() >= self.vocab_size:
                raise CorruptArtifact(
                    f"a window of view {window.view} at token {window.start} of its stream holds token "
                    f"{tokens_NT[row].max()}; the tokenizer has {self.vocab_size}. The shard has changed: find it "
                    "with `manifest verify`, and restore it"
                )
            weight_N[row] = 1.0
            view_N[row] = self.views.index(window.view)
        targets = (whole.stop - whole.first) * (seq_len - 1)
        return StepBatch(step, whole.segment, tokens_NT, weight_N, view_N, targets)


def step_source(mixture: Opened, timeline: Timeline, *, rank: int, world: int) -> StepSource:
    """A source over an opened mixture. Raises ArtifactError if its streams are not what they were."""
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
    return StepSource(timeline, streams, view_names(timeline), rank, world, manifest.tokenizer.vocab_size)


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
