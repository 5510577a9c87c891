"""A token stream laid out in bins: each bin holds whole pieces of documents, then padding up to its capacity.

    blocks  │      0      │      1      │ …    block_tokens / capacity bins each; the last one wraps
    bins    │ a b ·│ c d ·│ e ··│ f g h │ …    ·: end-of-text, never learned, of no document

Places are counted over the bins laid end to end, with padding.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from manifest.artifact import Opened
from manifest.corpus import PADDING, Owners, Span, TokenStream, occurrences
from manifest.indexed import Tokens
from manifest.pack import Pack, open_pack, tokens_id


class PackedStream:
    """The bins of a stream, read like a stream. block_tokens is a multiple of the capacity."""

    def __init__(self, stream: TokenStream, pack: Pack, end_of_text: int) -> None:
        assert stream.block_tokens % pack.capacity == 0, "a block has whole bins"
        self.stream, self.pack, self.end_of_text = stream, pack, end_of_text
        self.block_tokens = stream.block_tokens

    @property
    def tokens(self) -> int:
        """Places, with padding."""
        return (len(self.pack.offsets) - 1) * self.pack.capacity

    @property
    def blocks(self) -> int:
        return -(-self.tokens // self.block_tokens)

    def read(self, start: int, length: int) -> Tokens:
        """`length` tokens from place `start`, wrapping. Shape (length,)."""
        out = np.full(length, self.end_of_text, self.stream.shards[0].tokens.dtype)
        for to, source, n in self._pieces(start, length):
            out[to : to + n] = self.stream.read(source, n)
        return out

    def learned(self, start: int, length: int) -> npt.NDArray[np.bool_]:
        """Which tokens of `read(start, length)` are learned; padding is not. Shape (length,)."""
        out = np.zeros(length, bool)
        for to, source, n in self._pieces(start, length):
            out[to : to + n] = self.stream.learned(source, n)
        return out

    def owners(self, start: int, length: int) -> Owners:
        """As `TokenStream.owners`; padding is PADDING."""
        out = np.full(length, PADDING, np.int32)
        for number, (to, _, n) in enumerate(self._pieces(start, length)):
            out[to : to + n] = number
        return out

    def spans(self, start: int, length: int) -> Iterator[Span]:
        """The documents of `read(start, length)`, in order; positions within the token stream."""
        for _, source, n in self._pieces(start, length):
            yield from self.stream.spans(source, n)

    def places(self, document_id: str) -> Iterator[Span]:
        """Where the pieces of a document lie, from its first to its last; none if the stream does not have it."""
        span = self.stream.find(document_id)
        if span is None:
            return
        starts, order = self.pack.start, self.pack.order
        at = bisect_left(order, span.start, key=lambda piece: int(starts[piece]))
        while at < len(order) and starts[order[at]] < span.stop:
            piece = int(order[at])
            own = int(np.searchsorted(self.pack.offsets, piece, side="right")) - 1
            before = int(self.pack.length[self.pack.offsets[own] : piece].sum(dtype=np.int64))
            place = own * self.pack.capacity + before
            yield Span(document_id, place, place + int(self.pack.length[piece]))
            at += 1

    def find_content(self, digest: str) -> Iterator[str]:
        """As `TokenStream.find_content`."""
        return self.stream.find_content(digest)

    def occurrences(self, span: Span) -> Iterator[tuple[int, int, int]]:
        """Where a span of places lies in the blocks: (block, first, stop), offsets within the block."""
        return occurrences(span, self.tokens, self.block_tokens)

    def _pieces(self, start: int, length: int) -> Iterator[tuple[int, int, int]]:
        """(offset in the read, position in the token stream, tokens) of each piece, bin after bin, wrapping."""
        to = 0
        while to < length:
            own, first = divmod((start + to) % self.tokens, self.pack.capacity)
            stop = min(self.pack.capacity, first + length - to)
            low, high = int(self.pack.offsets[own]), int(self.pack.offsets[own + 1])
            at = 0
            for source, n in zip(self.pack.start[low:high].tolist(), self.pack.length[low:high].tolist(), strict=True):
                a, b = max(at, first), min(at + n, stop)
                if a < b:
                    yield to + a - first, source + a - at, b - a
                at += n
            to += stop - first


AnyStream = TokenStream | PackedStream
"""What windows are read from."""


def with_packs(streams: Mapping[str, TokenStream], packs: Iterable[Opened], end_of_text: int) -> dict[str, AnyStream]:
    """Streams by tokens id, and beside them those laid out by packs, by the pack's id. Raises as `open_pack` does."""
    found: dict[str, AnyStream] = dict(streams)
    for opened in packs:
        stream = streams[tokens_id(opened)]
        found[opened.manifest.id] = PackedStream(stream, open_pack(opened, stream), end_of_text)
    return found
