"""A stream: the tokens of a source, end to end over its shards, and the documents that they belong to.

    blocks  │ 0 │ 1 │ … │ N-1 │     block_tokens each; the last one wraps to the start of the stream
    tokens  └ doc ┘└── doc ──┘└ …

Positions are tokens from the start of the stream. Shards split the documents by ranges of id hash, so a
stream of several shards is in the same order as one of one shard.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
import numpy.typing as npt

from manifest.indexed import Shard, Tokens, open_shard


@dataclass(frozen=True)
class Span:
    """Tokens [start, stop) of the stream, and the document they belong to."""

    document: str
    start: int
    stop: int


class TokenStream:
    """The shards of one stream, opened as memory maps."""

    def __init__(self, shards: Sequence[Shard], block_tokens: int) -> None:
        self.shards = tuple(shards)
        self.block_tokens = block_tokens
        self.starts = [0, *accumulate(int(shard.tokens.size) for shard in self.shards)]
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
        parts = [self.shards[s].tokens[a:b] for s, a, b in self._pieces(start, length)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def learned(self, start: int, length: int) -> npt.NDArray[np.bool_]:
        """Which tokens of `read(start, length)` are learned. Shape (length,)."""
        parts = []
        for s, a, b in self._pieces(start, length):
            mask = self.shards[s].mask
            parts.append(np.ones(b - a, bool) if mask is None else mask[a:b].astype(bool))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def spans(self, start: int, length: int) -> Iterator[Span]:
        """The documents of `read(start, length)`, in order; positions within the stream."""
        for index, a, b in self._pieces(start, length):
            shard, base = self.shards[index], self.starts[index]
            for document, first, last in shard.spans(a, b):
                yield Span(shard.document_id(document), base + first, base + last)

    def find(self, document_id: str) -> Span | None:
        """The span of a document; None if the stream does not have it."""
        for shard, base in zip(self.shards, self.starts, strict=False):
            index = shard.find(document_id)
            if index is not None:
                return Span(document_id, base + shard.start(index), base + shard.start(index + 1))
        return None

    def find_content(self, digest: str) -> Iterator[str]:
        """The ids of the documents whose id ends in a content hash (see `identity.content_id`)."""
        for shard in self.shards:
            yield from shard.find_content(digest)

    def occurrences(self, span: Span) -> Iterator[tuple[int, int, int]]:
        """Where a span lies in the blocks: (block, first, stop), offsets within the block.

        The tokens that the last block takes from the start of the stream occur in it as well.
        """
        for shift in range(0, self.blocks * self.block_tokens, self.tokens):
            start, stop = span.start + shift, min(span.stop + shift, self.blocks * self.block_tokens)
            while start < stop:
                block, first = divmod(start, self.block_tokens)
                last = min(first + stop - start, self.block_tokens)
                yield block, first, last
                start += last - first

    def _pieces(self, start: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(shard, first, last + 1) within the shard, wrapping."""
        start %= self.tokens
        while length > 0:
            index = bisect_right(self.starts, start) - 1
            stop = min(start + length, self.starts[index + 1])
            yield index, start - self.starts[index], stop - self.starts[index]
            length -= stop - start
            start = stop % self.tokens


def open_stream(stems: Sequence[Path], block_tokens: int) -> TokenStream:
    """Opens the shards `stem.bin|.idx|.ids`, in order. Raises CorruptArtifact."""
    return TokenStream([open_shard(stem) for stem in stems], block_tokens)
