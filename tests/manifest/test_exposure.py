"""Exposure against a replay of whole runs: every step, every window, every token."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manifest.bestfit import best_fit
from manifest.checkpoint import Pace, Timeline
from manifest.corpus import open_stream
from manifest.errors import WrongArtifact
from manifest.exposure import documents_of_step, exposures
from manifest.identity import hash64
from manifest.order import OrderRecord, append, read, replace_from
from manifest.pack import pack
from manifest.packed import AnyStream, PackedStream

Write = Callable[..., list[Path]]
BLOCK_TOKENS = 8
CAPACITIES = (1, 2, 4, 8)
EMPTY = Timeline(order=OrderRecord(seed=0, block_tokens=BLOCK_TOKENS), paces=())


@dataclass(frozen=True)
class Case:
    """A run: for each stream the lengths of its documents; the order with its paces. A pack of stream s with bins of n
    tokens is called s@n.
    """

    lengths: dict[str, list[int]]
    timeline: Timeline

    def documents(self, stream: str) -> list[str]:
        """In order of the stream."""
        ids = [f"{stream}/{index}" for index in range(len(self.lengths[stream]))]
        return sorted(ids, key=lambda i: (hash64(i), i))

    def owners(self, stream: str) -> list[str | None]:
        """The document of each token of the stream, or of each place of a pack; None for padding."""
        name, _, capacity = stream.partition("@")
        if capacity:
            return packed_owners(self.documents(name), self.lengths[name], int(capacity))
        return [
            document for document, n in zip(self.documents(stream), self.lengths[stream], strict=True) for _ in range(n)
        ]

    def open(self, write: Write, directory: Path) -> dict[str, AnyStream]:
        streams: dict[str, AnyStream] = {}
        read = {draw.stream for segment in self.timeline.order.segments for draw in segment.draws}
        for name, lengths in self.lengths.items():
            (directory / name).mkdir()
            docs = {i: [7] * n for i, n in zip(self.documents(name), lengths, strict=True)}
            streams[name] = stream = open_stream(write(directory / name, docs, 2), BLOCK_TOKENS)
            for packed in read:
                if packed.startswith(f"{name}@"):
                    streams[packed] = PackedStream(stream, pack(stream, int(packed.partition("@")[2]))[0], 0)
        return streams


def packed_owners(documents: list[str], lengths: list[int], capacity: int) -> list[str | None]:
    """The document of each place of the bins, which hold documents in order of the stream."""
    bins = best_fit(np.array(lengths), capacity)
    owners: list[str | None] = []
    in_place = sorted(pairwise(bins.offsets.tolist()), key=lambda b: (bins.document[b[0]], bins.start[b[0]]))
    for first, stop in in_place:
        for piece in range(first, stop):
            owners += [documents[bins.document[piece]]] * int(bins.length[piece])
        owners += [None] * (-len(owners) % capacity)
    return owners


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Each view reads its stream or, in some segments, the pack of it that has the segment's windows as bins."""
    lengths = st.lists(st.integers(0, 11), min_size=1, max_size=5).filter(any)
    case = Case({f"s{index}": draw(lengths) for index in range(draw(st.integers(1, 2)))}, EMPTY)
    views = {f"v{index}": draw(st.sampled_from(sorted(case.lengths))) for index in range(draw(st.integers(1, 3)))}
    draws = st.fixed_dictionaries({view: st.integers(0, 5) for view in views}).filter(lambda d: any(d.values()))
    record = OrderRecord(seed=draw(st.integers(0, 9)), block_tokens=BLOCK_TOKENS)
    sizes: list[tuple[int, int]] = []

    def extend(record: OrderRecord, mixture: str, phase: str) -> OrderRecord:
        seq_len = draw(st.sampled_from(CAPACITIES))
        read = {view: f"{name}@{seq_len}" if draw(st.booleans()) else name for view, name in views.items()}
        streams = {view: (name, -(-len(case.owners(name)) // BLOCK_TOKENS)) for view, name in read.items()}
        sizes[len(record.segments) :] = [(seq_len, draw(st.integers(1, 9)))]
        return append(record, mixture=mixture, phase=phase, draws=draw(draws), streams=streams)

    for index in range(draw(st.integers(1, 2))):
        record = extend(record, "m1", f"p{index}")
    if draw(st.booleans()):
        record = extend(replace_from(record, draw(st.integers(0, record.slots))), "m2", "replaced")
    paces, first_step = [], 0
    for segment, (seq_len, per_step) in zip(record.segments, sizes, strict=True):
        paces.append(Pace(seq_len=seq_len, windows_per_step=per_step, first_step=first_step))
        first_step += -(-segment.slots * (BLOCK_TOKENS // seq_len) // per_step)
    return replace(case, timeline=Timeline(order=record, paces=tuple(paces)))


Place = tuple[int, int, int]
"""(step, segment, window)."""


def replay(case: Case) -> dict[str, Counter[Place]]:
    """For each document its tokens in each window of the run, token by token."""
    seen: dict[str, Counter[Place]] = {
        document: Counter() for stream in case.lengths for document in case.documents(stream)
    }
    order = case.timeline.order
    for step in range(case.timeline.total_steps):
        windows = case.timeline.step(step)
        seq_len = case.timeline.paces[windows.segment].seq_len
        for window in range(windows.first, windows.stop):
            slot, offset = divmod(window * seq_len, BLOCK_TOKENS)
            found = read(order, order.segments[windows.segment].first_slot + slot)
            owners = case.owners(found.stream)
            for token in range(seq_len):
                owner = owners[(found.block * BLOCK_TOKENS + offset + token) % len(owners)]
                if owner is not None:
                    seen[owner][step, windows.segment, window] += 1
    return seen


@given(cases())
def test_exposure_is_what_a_replay_of_the_run_counts(write_shards: Write, case: Case) -> None:
    with TemporaryDirectory() as directory:
        streams = case.open(write_shards, Path(directory))
        for document, expected in replay(case).items():
            found = list(exposures(case.timeline, streams, document))
            assert [((e.step, e.segment, e.window), e.tokens) for e in found] == sorted(expected.items())
            for exposure in found:
                segment = case.timeline.order.segments[exposure.segment]
                assert (exposure.phase, exposure.mixture) == (segment.phase, segment.mixture)
                assert exposure.view == read(case.timeline.order, exposure.slot).view


@given(cases(), st.data())
def test_a_checkpoint_has_seen_only_the_steps_before_it(write_shards: Write, case: Case, data: st.DataObject) -> None:
    until = data.draw(st.integers(0, case.timeline.total_steps))
    with TemporaryDirectory() as directory:
        streams = case.open(write_shards, Path(directory))
        for document, expected in replay(case).items():
            found = [e.step for e in exposures(case.timeline, streams, document, until)]
            assert found == sorted(step for step, _, _ in expected if step < until)


@given(cases())
@settings(max_examples=50)
def test_the_documents_of_a_step_are_those_whose_exposure_names_the_step(write_shards: Write, case: Case) -> None:
    expected = replay(case)
    with TemporaryDirectory() as directory:
        streams = case.open(write_shards, Path(directory))
        for step in range(case.timeline.total_steps):
            found: dict[tuple[str, Place], int] = Counter()
            for window in documents_of_step(case.timeline, streams, step):
                padding = window.seq_len - sum(span.stop - span.start for span in window.spans)
                assert padding == 0 or (padding > 0 and "@" in window.stream)
                for span in window.spans:
                    found[span.document, (step, window.segment, window.window)] += span.stop - span.start
            assert found == {
                (document, place): tokens
                for document, places in expected.items()
                for place, tokens in places.items()
                if place[0] == step
            }


def test_a_stream_that_was_not_given_is_named_and_not_skipped() -> None:
    record = append(
        OrderRecord(seed=0, block_tokens=8), mixture="m", phase="p", draws={"v": 1}, streams={"v": ("abc", 1)}
    )
    timeline = Timeline(order=record, paces=(Pace(seq_len=8, windows_per_step=1, first_step=0),))
    with pytest.raises(WrongArtifact, match="the stream abc"):
        list(exposures(timeline, {}, "d"))
