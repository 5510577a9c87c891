"""A token stream laid out in bins: each bin holds whole pieces of documents, then padding up to its capacity.

    blocks  │      0      │      1      │ …    block_tokens / capacity bins each; the last one wraps
    bins    │ a b ·│ c d ·│ e ··│ f g h │ …    ·: end-of-text, never learned, of no document

Positions are places in the bins laid end to end.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from manifest.bestfit import Bins, Ints, best_fit
from manifest.corpus import Span, TokenStream, occurrences
from manifest.indexed import Tokens


def document_starts(stream: TokenStream) -> Ints:
    """First token of each document in stream order, and the number of tokens. Shape (documents + 1,)."""
    parts = [
        base + np.asarray(shard.pointers, np.int64) // shard.tokens.itemsize
        for shard, base in zip(stream.shards, stream.starts, strict=False)
    ]
    return np.concatenate([*parts, np.array([stream.tokens], np.int64)])


def pack(stream: TokenStream, capacity: int) -> Bins:
    """The best-fit bins of the documents of a stream."""
    return best_fit(np.diff(document_starts(stream)), capacity)


class PackedStream:
    """The bins of a stream, read like a stream. block_tokens is a multiple of the capacity."""

    def __init__(self, stream: TokenStream, bins: Bins, end_of_text: int) -> None:
        assert stream.block_tokens % bins.capacity == 0, "a block has whole bins"
        self.stream, self.bins, self.end_of_text = stream, bins, end_of_text
        self.block_tokens = stream.block_tokens
        self._first_document = np.cumsum([0, *(shard.documents for shard in stream.shards)]).tolist()
        self._from = document_starts(stream)[bins.document] + bins.start
        before = np.cumsum(bins.length) - bins.length
        owner = np.repeat(np.arange(len(bins.offsets) - 1), np.diff(bins.offsets))
        self._at = owner * bins.capacity + before - before[bins.offsets[owner]]
        self._by_document = np.argsort(bins.document, kind="stable")
        self._keys = bins.document[self._by_document]

    @property
    def tokens(self) -> int:
        """Places, with padding."""
        return (len(self.bins.offsets) - 1) * self.bins.capacity

    @property
    def blocks(self) -> int:
        return -(-self.tokens // self.block_tokens)

    def read(self, start: int, length: int) -> Tokens:
        """`length` tokens from position `start`, wrapping. Shape (length,)."""
        out = np.full(length, self.end_of_text, self.stream.shards[0].tokens.dtype)
        for to, _, _, source, n in self._overlaps(start, length):
            out[to : to + n] = self.stream.read(source, n)
        return out

    def learned(self, start: int, length: int) -> npt.NDArray[np.bool_]:
        """Which tokens of `read(start, length)` are learned; padding is not. Shape (length,)."""
        out = np.zeros(length, bool)
        for to, _, _, source, n in self._overlaps(start, length):
            out[to : to + n] = self.stream.learned(source, n)
        return out

    def spans(self, start: int, length: int) -> Iterator[Span]:
        """The documents of `read(start, length)`, in order; positions in the bins."""
        for _, piece, place, _, n in self._overlaps(start, length):
            yield Span(self._document_id(int(self.bins.document[piece])), place, place + n)

    def places(self, document_id: str) -> Iterator[Span]:
        """Where the pieces of a document lie, from its first to its last; none if the stream does not have it."""
        for shard, first in zip(self.stream.shards, self._first_document, strict=False):
            index = shard.find(document_id)
            if index is None:
                continue
            low, high = np.searchsorted(self._keys, [first + index, first + index + 1])
            for piece in sorted(self._by_document[low:high].tolist(), key=lambda p: int(self.bins.start[p])):
                yield Span(document_id, int(self._at[piece]), int(self._at[piece] + self.bins.length[piece]))

    def find_content(self, digest: str) -> Iterator[str]:
        """As `TokenStream.find_content`."""
        return self.stream.find_content(digest)

    def occurrences(self, span: Span) -> Iterator[tuple[int, int, int]]:
        """Where a span lies in the blocks: (block, first, stop), offsets within the block."""
        return occurrences(span, self.tokens, self.block_tokens)

    def _document_id(self, document: int) -> str:
        shard = bisect_right(self._first_document, document) - 1
        return self.stream.shards[shard].document_id(document - self._first_document[shard])

    def _overlaps(self, start: int, length: int) -> Iterator[tuple[int, int, int, int, int]]:
        """(offset in the read, piece, position, position in the token stream, tokens) of each piece, wrapping."""
        start, to = start % self.tokens, 0
        while to < length:
            stop = min(start + length - to, self.tokens)
            first = max(int(np.searchsorted(self._at, start, side="right")) - 1, 0)
            for piece in range(first, int(np.searchsorted(self._at, stop))):
                at = int(self._at[piece])
                a, b = max(at, start), min(at + int(self.bins.length[piece]), stop)
                if a < b:
                    yield to + a - start, piece, a, int(self._from[piece]) + a - at, b - a
            to, start = to + stop - start, 0
