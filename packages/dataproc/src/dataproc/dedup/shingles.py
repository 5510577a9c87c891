"""Cleaned texts → shingles, each as one 64-bit hash (kernels/hashing.py has the formula).

    hashes    u64, flat       one per shingle position, repeats included; in `ShingleSets` ascending and without
    offsets   i64, rows + 1   hashes[offsets[d] : offsets[d + 1]] are those of document d

The hashes of a batch take eight bytes per shingle, so hand in batches, not corpora. Signatures need none of this:
`minhash.sketch` makes them from raw texts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataproc.dedup.cleaning import Rows, clean_all, longest, offsets_of, rows_of, split
from dataproc.kernels.scratch import Scratch, scratch
from dataproc.native import I64, U8, U64, Native

# Hashes compare only with hashes of the same name: it belongs into the fingerprint of every artifact that
# holds them. Change it with any change of kernels/hashing.py or of the cleaning.
HASH = "winnow-fold64-1"

_hash_rows = Native("dataproc.kernels.hashing", "hash_rows")
count_units = Native("dataproc.kernels.hashing", "count_units")
_hash_shingles = Native("dataproc.kernels.hashing", "hash_shingles")
pack_rows = Native("dataproc.kernels.sets", "pack_rows")

# The seeds of kernels/hashing.py for whole texts.
_TEXT_SEEDS = np.array([0x510E527FADE682D1, 0x9B05688C2B3E6C1F], np.uint64)


BATCH_BYTES = 8_000_000
"""Of texts whose sets are held at once; they take up to 16 times as much for a while. ranges.py is for longer ones."""
# Cleaned bytes that are made sets at a time: their hashes, eight times as many bytes, stay in the cache.
_AT_A_TIME = 1 << 17


@dataclass(frozen=True)
class Shingling:
    """n characters (code points) in a row, or n words in a row joined by one space."""

    unit: Literal["char", "word"]
    n: int

    def __post_init__(self) -> None:
        if self.unit not in ("char", "word"):
            raise ValueError(f"shingles are of unit 'char' or 'word', not {self.unit!r}")
        if self.n < 1:
            raise ValueError(f"a shingle has at least 1 {self.unit}, not {self.n}")


@dataclass(frozen=True)
class ShingleHashes:
    """One hash per shingle position, documents end to end."""

    hashes: U64
    offsets: I64


@dataclass(frozen=True)
class ShingleSets:
    """Each document's distinct shingle hashes, ascending, documents end to end."""

    hashes: U64
    offsets: I64

    def of(self, document: int) -> U64:
        """The set of one document."""
        return self.hashes[self.offsets[document] : self.offsets[document + 1]]


def shingle_sets(texts: pa.Array | pa.ChunkedArray, shingling: Shingling) -> ShingleSets:
    """The sets of raw texts. Raises ValueError on a null and TypeError on anything but strings.

    Made part by part at the end of those before, so that memory holds little more than the sets.
    """
    rows = rows_of(clean_all(texts))
    own = scratch(longest(rows), shingling.n)
    positions = _positions(rows, shingling, own)
    hashes = np.empty(positions.sum() + 1, np.uint64)
    sizes, row, end = np.zeros_like(positions), 0, 0
    for part in split(rows, len(rows.data) // _AT_A_TIME + 1):
        of_part = positions[row : row + len(part.offsets) - 1]
        sets = _sorted(_hashed_shingles(part, shingling, own, of_part, hashes[end:]))
        sizes[row : row + len(of_part)] = np.diff(sets.offsets)
        row, end = row + len(of_part), end + len(sets.hashes)
    return ShingleSets(hashes[:end], offsets_of(sizes))


def by_size(sizes: I64) -> Iterator[tuple[int, int]]:
    """Rows of so many bytes, cut into ranges (first, end) of about BATCH_BYTES. A row of more is a range by itself."""
    first = held = 0
    for row, size in enumerate(sizes.tolist()):
        if row > first and held + size > BATCH_BYTES:
            yield first, row
            first, held = row, 0
        held += size
    if first < len(sizes):
        yield first, len(sizes)


def byte_lengths(texts: pa.Array) -> I64:
    """The size of each text in UTF-8."""
    lengths: I64 = pc.binary_length(texts).to_numpy().astype(np.int64)
    return lengths


def shingle_hashes(cleaned: pa.LargeStringArray, shingling: Shingling) -> ShingleHashes:
    """One hash per shingle position of cleaned texts; a text shorter than n units has none at all."""
    rows = rows_of(cleaned)
    own = scratch(longest(rows), shingling.n)
    positions = _positions(rows, shingling, own)
    return _hashed_shingles(rows, shingling, own, positions, np.empty(positions.sum() + 1, np.uint64))


def unique_sorted(shingles: ShingleHashes) -> ShingleSets:
    """The set of each document's hashes."""
    return _sorted(ShingleHashes(shingles.hashes.copy(), shingles.offsets))


def _positions(rows: Rows, shingling: Shingling, own: Scratch) -> I64:
    """How many shingles each row has."""
    units = np.empty(len(rows.offsets) - 1, np.int64)
    count_units(*rows, shingling.unit == "word", own.text, units)
    return np.maximum(units - shingling.n + 1, 0)


def _hashed_shingles(rows: Rows, shingling: Shingling, own: Scratch, positions: I64, hashes: U64) -> ShingleHashes:
    """Writes to the front of `hashes`, where there must be room for one more."""
    settings = (shingling.unit == "word", shingling.n)
    made = _hash_shingles(*rows, *settings, own.text, own.state, own.ring, own.places, hashes)
    assert made == positions.sum()
    return ShingleHashes(hashes[:made], offsets_of(positions))


def _sorted(shingles: ShingleHashes) -> ShingleSets:
    """Overwrites the hashes."""
    for first, end in pairwise(shingles.offsets.tolist()):
        shingles.hashes[first:end].sort()  # NumPy's vector sort: 4 to 6 ns per hash, 1 µs per document besides
    offsets = np.zeros_like(shingles.offsets)
    pack_rows(shingles.hashes, shingles.offsets, offsets)
    return ShingleSets(shingles.hashes[: offsets[-1]], offsets)


def text_hashes(cleaned: pa.LargeStringArray) -> U64:
    """Cleaned texts → (rows, 2) u64: 128 bits that tell whole texts apart."""
    return _hashed(*rows_of(cleaned), _TEXT_SEEDS).reshape(-1, 2)


def hash_rows(rows_NB: U8, *, seed: int) -> U64:
    """Rows of B bytes (N, B) → (N,) u64, each seed a function of its own."""
    count, width = rows_NB.shape
    offsets = np.arange(count + 1, dtype=np.int64) * width
    return _hashed(np.ascontiguousarray(rows_NB).reshape(-1), offsets, np.array([seed], np.uint64))


def _hashed(data: U8, offsets: I64, seeds: U64) -> U64:
    hashes = np.empty((len(offsets) - 1) * len(seeds), np.uint64)
    own = scratch(int(np.diff(offsets).max(initial=0)))
    _hash_rows(data, offsets, seeds, own.text, hashes)
    return hashes
