from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from manifest.corpus import TokenStream, open_stream
from manifest.identity import hash64

Write = Callable[..., list[Path]]


@st.composite
def documents(draw: st.DrawFn) -> dict[str, list[int]]:
    """Documents of random lengths, some empty; every token of the stream is another number."""
    lengths = draw(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any))
    ids = sorted((f"d{index}" for index in range(len(lengths))), key=lambda i: (hash64(i), i))
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    return {i: list(range(a, a + n)) for i, a, n in zip(ids, starts, lengths, strict=True)}


@contextmanager
def stream_of(write: Write, docs: dict[str, list[int]], shards: int, block_tokens: int) -> Iterator[TokenStream]:
    with TemporaryDirectory() as directory:
        yield open_stream(write(Path(directory), docs, shards), block_tokens)


def owners(docs: dict[str, list[int]]) -> list[str]:
    """The document of each token of the stream."""
    ordered = sorted(docs, key=lambda i: (hash64(i), i))
    return [document for document in ordered for _ in docs[document]]


SHAPE = (documents(), st.integers(1, 4), st.integers(1, 20))


@given(*SHAPE, st.data())
def test_reading_wraps_at_the_end_of_the_stream(
    write_shards: Write, docs: dict[str, list[int]], shards: int, block_tokens: int, data: st.DataObject
) -> None:
    total = sum(map(len, docs.values()))
    start, length = data.draw(st.integers(0, 3 * total)), data.draw(st.integers(1, 3 * total))
    with stream_of(write_shards, docs, shards, block_tokens) as stream:
        assert stream.read(start, length).tolist() == [(start + i) % total for i in range(length)]


@given(*SHAPE, st.data())
def test_spans_name_the_document_of_every_token_that_is_read(
    write_shards: Write, docs: dict[str, list[int]], shards: int, block_tokens: int, data: st.DataObject
) -> None:
    owner, total = owners(docs), sum(map(len, docs.values()))
    start, length = data.draw(st.integers(0, total - 1)), data.draw(st.integers(1, 2 * total))
    with stream_of(write_shards, docs, shards, block_tokens) as stream:
        spans = list(stream.spans(start, length))
    assert [p for span in spans for p in range(span.start, span.stop)] == [(start + i) % total for i in range(length)]
    assert all(owner[p] == span.document for span in spans for p in range(span.start, span.stop))
    assert all(span.stop > span.start for span in spans)


@given(*SHAPE)
def test_every_document_is_found_where_it_lies(
    write_shards: Write, docs: dict[str, list[int]], shards: int, block_tokens: int
) -> None:
    with stream_of(write_shards, docs, shards, block_tokens) as stream:
        for document, tokens in docs.items():
            span = stream.find(document)
            assert span is not None
            assert list(range(span.start, span.stop)) == tokens
        assert stream.find("nobody") is None


@given(*SHAPE)
def test_occurrences_are_the_places_of_a_document_in_all_blocks(
    write_shards: Write, docs: dict[str, list[int]], shards: int, block_tokens: int
) -> None:
    owner, total = owners(docs), sum(map(len, docs.values()))
    with stream_of(write_shards, docs, shards, block_tokens) as stream:
        assert stream.blocks == -(-total // block_tokens)
        for document in docs:
            span = stream.find(document)
            assert span is not None
            found = [
                (block, offset) for block, first, stop in stream.occurrences(span) for offset in range(first, stop)
            ]
            assert sorted(found) == [
                (block, offset)
                for block in range(stream.blocks)
                for offset in range(block_tokens)
                if owner[(block * block_tokens + offset) % total] == document
            ]


@given(documents(), st.integers(2, 5))
def test_splitting_into_shards_changes_nothing(write_shards: Write, docs: dict[str, list[int]], shards: int) -> None:
    total = sum(map(len, docs.values()))
    with stream_of(write_shards, docs, 1, 4) as whole, stream_of(write_shards, docs, shards, 4) as split:
        assert whole.read(0, total).tolist() == split.read(0, total).tolist()
        assert list(whole.spans(0, total)) == list(split.spans(0, total))


def test_a_stream_shorter_than_its_block_wraps_as_often_as_it_takes(write_shards: Write, tmp_path: Path) -> None:
    stream = open_stream(write_shards(tmp_path, {"d": [1, 2, 3]}), 8)
    span = stream.find("d")
    assert span is not None
    assert stream.read(0, 8).tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    assert list(stream.occurrences(span)) == [(0, 0, 3), (0, 3, 6), (0, 6, 8)]
    assert [key for key, _ in groupby(stream.spans(0, 8), key=lambda s: s.document)] == ["d"]
