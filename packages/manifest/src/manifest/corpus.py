"""A stream: the tokens of a source, end to end over its shards, and the documents that they belong to.

    blocks  │ 0 │ 1 │ … │ N-1 │     block_tokens each; the last one wraps to the start of the stream
    tokens  └ doc ┘└── doc ──┘└ …

Positions are tokens from the start of the stream. Shards split the documents by ranges of id hash, so a
stream of several shards is in the same order as one of one shard.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifest.identity import hash64
from manifest.indexed import Shard, Tokens, open_shard

Owners = npt.NDArray[np.int32]

Size = tuple[int, int]
"""Tokens and documents of a shard."""

PADDING = -1
"""The owner of a place that holds no token of a document."""


@dataclass(frozen=True)
class Span:
    """Tokens [start, stop) of the stream, and the document they belong to."""

    document: str
    start: int
    stop: int


class TokenStream:
    """The shards of one stream, opened as memory maps.

    sizes: tokens and documents of each shard, where it is known without opening them.
    """

    def __init__(self, shards: Sequence[Shard], block_tokens: int, sizes: Sequence[Size] | None = None) -> None:
        self.shards = shards
        self.block_tokens = block_tokens
        sizes = sizes or [(int(shard.tokens.size), shard.documents) for shard in shards]
        self.starts = [0, *accumulate(tokens for tokens, _ in sizes)]
        self._filled = [index for index, (_, documents) in enumerate(sizes) if documents]
        assert self.tokens > 0, "a stream has tokens"

    @property
    def tokens(self) -> int:
        return self.starts[-1]

    @property
    def blocks(self) -> int:
        """⌈tokens / block_tokens⌉."""
        return -(-self.tokens // self.block_tokens)

    def read(self, start: int, length: int) -> Tokens:
        """`length` tokens from position `start`, wrapping at the end of the stream. Shape (length,)."""
        at = start % self.starts[-1]
        index = bisect_right(self.starts, at) - 1
        if at + length <= self.starts[index + 1]:
            first = at - self.starts[index]
            return self.shards[index].read(first, first + length)
        parts = [self.shards[s].read(a, b) for s, a, b in self._pieces(start, length)]
        return np.concatenate(parts)

    def learned(self, start: int, length: int) -> npt.NDArray[np.bool_]:
        """Which tokens of `read(start, length)` are learned. Shape (length,)."""
        parts = []
        for s, a, b in self._pieces(start, length):
            mask = self.shards[s].mask
            parts.append(np.ones(b - a, bool) if mask is None else mask[a:b].astype(bool))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def owners(self, start: int, length: int) -> Owners:
        """Which of the documents of `read(start, length)` each token is of, counted from 0. Shape (length,)."""
        begins, to = np.zeros(length, np.int32), 0
        for s, a, b in self._pieces(start, length):
            begins[self.shards[s].starts_within(a, b) - a + to] = 1
            to += b - a
        owners: Owners = np.cumsum(begins, dtype=np.int32) - begins[0]
        return owners

    def spans(self, start: int, length: int) -> Iterator[Span]:
        """The documents of `read(start, length)`, in order; positions within the stream."""
        for index, a, b in self._pieces(start, length):
            shard, base = self.shards[index], self.starts[index]
            for document, first, last in shard.spans(a, b):
                yield Span(shard.document_id(document), base + first, base + last)

    def find(self, document_id: str) -> Span | None:
        """The span of a document; None if the stream does not have it."""
        key = hash64(document_id)
        at = bisect_left(self._filled, key, key=lambda s: int(self.shards[s].hashes[-1]))
        for s in self._filled[at : at + 1]:  # shards hold ranges of the hash
            index = self.shards[s].find(document_id)
            if index is not None:
                start = self.starts[s]
                return Span(document_id, start + self.shards[s].start(index), start + self.shards[s].start(index + 1))
        return None

    def places(self, document_id: str) -> Iterator[Span]:
        """As `find`: one span, or none."""
        span = self.find(document_id)
        if span is not None:
            yield span

    def find_content(self, digest: str) -> Iterator[str]:
        """The ids of the documents whose id ends in a content hash (see `identity.content_id`)."""
        for shard in self.shards:
            yield from shard.find_content(digest)

    def occurrences(self, span: Span) -> Iterator[tuple[int, int, int]]:
        """Where a span lies in the blocks: (block, first, stop), offsets within the block.

        The tokens that the last block takes from the start of the stream occur in it as well.
        """
        return occurrences(span, self.tokens, self.block_tokens)

    def _pieces(self, start: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(shard, first, last + 1) within the shard, wrapping."""
        start %= self.tokens
        while length > 0:
            index = bisect_right(self.starts, start) - 1
            stop = min(start + length, self.starts[index + 1])
            yield index, start - self.starts[index], stop - self.starts[index]
            length -= stop - start
            start = stop % self.tokens


def occurrences(span: Span, tokens: int, block_tokens: int) -> Iterator[tuple[int, int, int]]:
    """As `TokenStream.occurrences`, for any stream of so many tokens, whose last block wraps."""
    places = -(-tokens // block_tokens) * block_tokens
    for shift in range(0, places, tokens):
        start, stop = span.start + shift, min(span.stop + shift, places)
        while start < stop:
            block, first = divmod(start, block_tokens)
            last = min(first + stop - start, block_tokens)
            yield block, first, last
            start += last - first


def open_stream(stems: Sequence[Path], block_tokens: int) -> TokenStream:
    """Opens the shards `stem.bin|.idx|.ids`, in order. Raises CorruptArtifact."""
    return TokenStream([open_shard(stem) for stem in stems], block_tokens)
