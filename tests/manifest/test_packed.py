"""A packed stream against the list of its places."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st

from manifest.corpus import PADDING, TokenStream, open_stream
from manifest.identity import hash64
from manifest.indexed import ShardWriter, open_shard, token_dtype
from manifest.pack import pack
from manifest.packed import PackedStream

Write = Callable[..., list[Path]]
END = 999

of_streams = given(
    st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(1, 3),
    st.data(),
)
"""Lengths of documents, shards, tokens of a bin, bins of a block, and more to draw."""


@of_streams
def test_reads_spans_and_places_are_those_of_the_bins(
    write_shards: Write, lengths: list[int], shards: int, capacity: int, per_block: int, data: st.DataObject
) -> None:
    ids = sorted((f"d{i}" for i in range(len(lengths))), key=lambda i: (hash64(i), i))
    docs = {d: [100 * i + t for t in range(n)] for i, (d, n) in enumerate(zip(ids, lengths, strict=True))}
    with TemporaryDirectory() as directory:
        stream = open_stream(write_shards(Path(directory), docs, shards), capacity * per_block)
        packed = PackedStream(stream, pack(stream, capacity)[0], END)
        start = data.draw(st.integers(0, 2 * packed.tokens))
        length = data.draw(st.integers(1, 3 * packed.tokens))
        whole = packed.read(0, packed.tokens).tolist()
        assert sorted(t for t in whole if t != END) == sorted(t for tokens in docs.values() for t in tokens)
        wrapped = [whole[(start + i) % packed.tokens] for i in range(length)]
        assert packed.read(start, length).tolist() == wrapped
        assert packed.learned(start, length).tolist() == [t != END for t in wrapped]
        plain = stream.read(0, stream.tokens).tolist()
        named = [(s.document, plain[p]) for s in packed.spans(start, length) for p in range(s.start, s.stop)]
        assert named == [(ids[t // 100], t) for t in wrapped if t != END]
        assert [owner == PADDING for owner in packed.owners(start, length)] == [t == END for t in wrapped]
        for document, tokens in docs.items():
            assert [whole[p] for s in packed.places(document) for p in range(s.start, s.stop)] == tokens
            found = sorted(o for s in packed.places(document) for o in packed.occurrences(s))
            read = [whole[p % packed.tokens] for p in range(packed.blocks * packed.block_tokens)]
            places = [b * packed.block_tokens + i for b, first, stop in found for i in range(first, stop)]
            assert sorted(places) == [p for p, t in enumerate(read) if t in tokens]


@of_streams
def test_tokens_of_a_read_have_the_owner_of_those_before_them_if_they_go_on_with_it(
    write_shards: Write, lengths: list[int], shards: int, capacity: int, per_block: int, data: st.DataObject
) -> None:
    docs = {f"d{i}": [20 * i + t for t in range(n)] for i, n in enumerate(lengths)}
    with TemporaryDirectory() as directory:
        stream = open_stream(write_shards(Path(directory), docs, shards), capacity * per_block)
        packed = PackedStream(stream, pack(stream, capacity)[0], END)
        for source in (stream, packed):
            start = data.draw(st.integers(0, 2 * source.tokens))
            length = data.draw(st.integers(1, min(3 * source.tokens, 50)))
            tokens, owners = source.read(start, length).tolist(), source.owners(start, length).tolist()
            for at in range(1, length):
                goes_on = tokens[at] == tokens[at - 1] + 1 or tokens[at] == END == tokens[at - 1]
                if source is stream or (start + at) % capacity:
                    assert (owners[at] == owners[at - 1]) == goes_on
            assert owners[0] == (0 if tokens[0] != END else PADDING)


def test_what_is_learned_goes_with_its_tokens(tmp_path: Path) -> None:
    docs = {d: range(10 * i + 1, 10 * i + 1 + n) for i, (d, n) in enumerate({"a": 5, "b": 3, "c": 7}.items())}
    with ShardWriter(tmp_path / "s", token_dtype(100), masked=True) as writer:
        for document in sorted(docs, key=lambda d: (hash64(d), d)):
            writer.add(document, list(docs[document]), [t % 2 == 0 for t in docs[document]])
    stream = TokenStream([open_shard(tmp_path / "s", masked=True)], 8)
    packed = PackedStream(stream, pack(stream, 4)[0], 0)
    tokens, learned = packed.read(0, packed.tokens).tolist(), packed.learned(0, packed.tokens).tolist()
    assert learned == [t != 0 and t % 2 == 0 for t in tokens]
    assert 0 in tokens
    assert any(learned)
