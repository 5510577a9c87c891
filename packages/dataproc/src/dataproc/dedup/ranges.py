"""One long text → its shingle set in parts, so that memory holds a part of the hashes and never all.

The hashes of a text take up to eight times as many bytes as the text. Of a long text the set is made range by range:
each pass hashes the whole text and keeps what falls into one range of 64-bit numbers. Parts come in ascending order;
end to end they are the set that `shingles.shingle_sets` would make.

    2⁶⁴  |·········|·········|·········|·········|      a range of hashes per pass
             ↓ sort, drop repeats
           part 0     part 1    part 2    part 3
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from dataproc.dedup import shingles
from dataproc.dedup.cleaning import clean_all, rows_of
from dataproc.dedup.shingles import Shingling, byte_lengths, count_units, pack_rows
from dataproc.kernels.scratch import HASHES, MARGIN, scratch
from dataproc.native import I64, U64, Native

PART_BYTES = 64_000_000
"""Of hashes that are held at a time, or as many bytes as the cleaned text has, if these are more."""
_DONE = -1

_hashes_between = Native("dataproc.kernels.hashing", "hashes_between")


class LongText:
    """A cleaned text, where its hashes are made from. Raises as `clean_all`."""

    def __init__(self, text: pa.Array, shingling: Shingling) -> None:
        """text: an array of one."""
        rows = rows_of(clean_all(text))
        self.shingling = shingling
        self.bytes = len(rows.data)
        self._own = scratch(self.bytes, shingling.n)
        units = np.empty(1, np.int64)
        count_units(*rows, shingling.unit == "word", self._own.text, units)
        self.positions = max(0, int(units[0]) - shingling.n + 1)

    def parts(self, count: int) -> Iterator[U64]:
        """The set, cut into so many ranges. A part is good until the next one is asked for."""
        hashes = np.empty(self.positions // count * 5 // 4 + 8 * HASHES, np.uint64)
        for number in range(count):
            bounds = (number * 2**64 // count, (number + 1) * 2**64 // count - 1)
            hashes, size = self._between(np.array(bounds, np.uint64), hashes)
            yield hashes[:size]

    def _between(self, bounds: U64, hashes: U64) -> tuple[U64, int]:
        """The distinct hashes of a range, at the front of `hashes`, or of a larger array if that has no room."""
        own, size = self._own, 0
        own.state[:] = 0
        text = (MARGIN + self.bytes, self.shingling.unit == "word", self.shingling.n, own.text)
        while own.state[0] != _DONE:
            size = _hashes_between(bounds, *text, own.state, own.ring, own.places, own.hashes, hashes, size)
            size = _distinct(hashes, size)
            if size > len(hashes) * 7 // 8:  # mere chance, where hashes are uniform
                hashes = np.concatenate([hashes, np.empty_like(hashes)])
        return hashes, size


def _distinct(hashes: U64, size: int) -> int:
    """Sorts the first of `hashes` and drops repeats; returns how many are left."""
    hashes[:size].sort()
    offsets: I64 = np.zeros(2, np.int64)
    pack_rows(hashes, np.array([0, size]), offsets)
    return int(offsets[1])


def is_long(texts: pa.Array) -> bool:
    """Whether this is one text whose set is to be made in parts (see `shingles.by_size`)."""
    return len(texts) == 1 and bool(byte_lengths(texts)[0] > shingles.BATCH_BYTES)


def set_parts(text: pa.Array, shingling: Shingling) -> Iterator[U64]:
    """The set of one raw text, an array of one. A part is good until the next one is asked for."""
    whole = LongText(text, shingling)
    yield from whole.parts(_ranges(whole))


def _ranges(text: LongText) -> int:
    return -(-8 * text.positions // max(PART_BYTES, text.bytes)) or 1
