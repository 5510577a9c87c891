"""Cleaned texts → shingles, each as one 64-bit hash.

In: an Arrow array of cleaned texts, one row per document (cleaning.py). Out, for the same rows:

    hashes    u64, flat       one per shingle position, repeats included
    offsets   i64, rows + 1   hashes[offsets[d] : offsets[d + 1]] are those of document d

The hashes of a batch take eight bytes per character beside its text, so hand in batches, not corpora.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa

from dataproc.dedup.cleaning import SPACE, rows_of
from dataproc.dedup.kernel import I64, U8, U64, kernel

# Hashes compare only with hashes of the same name: it belongs into the fingerprint of every artifact that
# holds them. Change it with any change of `_hash_span`, of its seeds, or of the cleaning.
HASH = "winnow-xmr64-1"


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


def shingle_hashes(cleaned: pa.LargeStringArray, shingling: Shingling) -> ShingleHashes:
    """One hash per shingle position of cleaned texts; a text shorter than n units has none at all.

    A shingle is hashed as its UTF-8 bytes, so equal shingles hash alike wherever they stand.
    """
    rows = rows_of(cleaned)
    in_words = shingling.unit == "word"
    offsets = _shingle_offsets(rows.data, rows.offsets, in_words, shingling.n)
    hashes = np.empty(offsets[-1], np.uint64)
    _hash_shingles(rows.data, rows.offsets, in_words, shingling.n, offsets, hashes)
    return ShingleHashes(hashes, offsets)


def unique_sorted(shingles: ShingleHashes) -> ShingleSets:
    """The set of each document's hashes."""
    hashes = shingles.hashes.copy()
    offsets = _sort_unique(hashes, shingles.offsets)
    return ShingleSets(hashes[: offsets[-1]].copy(), offsets)


def text_hashes(cleaned: pa.LargeStringArray) -> U64:
    """Cleaned texts → (rows, 2) u64: 128 bits that tell whole texts apart."""
    rows = rows_of(cleaned)
    lanes = [_hash_spans(rows.data, rows.offsets, np.uint64(seed)) for seed in _TEXT_SEEDS]
    return np.stack(lanes, axis=1)


def hash_rows(rows_NB: U8, *, seed: int) -> U64:
    """Rows of B bytes (N, B) → (N,) u64, each seed a function of its own."""
    count, width = rows_NB.shape
    ends = np.arange(count + 1, dtype=np.int64) * width
    data = np.ascontiguousarray(rows_NB).reshape(-1)
    data.flags.writeable = False
    return _hash_spans(data, ends, np.uint64(seed))


@kernel
def _shingle_offsets(data: U8, bounds: I64, in_words: bool, n: int) -> I64:
    offsets = np.zeros(len(bounds), np.int64)
    for row in range(len(bounds) - 1):
        units = 1 if in_words and bounds[row + 1] > bounds[row] else 0
        for byte in data[bounds[row] : bounds[row + 1]]:
            units += byte == SPACE if in_words else (byte & 0xC0) != 0x80  # 10xxxxxx goes on a character
        offsets[row + 1] = offsets[row] + max(0, units - n + 1)
    return offsets


@kernel
def _hash_shingles(data: U8, bounds: I64, in_words: bool, n: int, offsets: I64, hashes: U64) -> None:
    """A window of n units slides over each row: both of its ends move by one unit a time."""
    for row in range(len(bounds) - 1):
        text = data[bounds[row] : bounds[row + 1]]
        words = _words(text)
        start = end = 0
        for _ in range(n - 1):
            end = _next_unit(text, end, in_words)
        for position in range(offsets[row], offsets[row + 1]):
            end = _next_unit(text, end, in_words)
            stop = end - 1 if in_words and end < len(text) else end  # without the space before the next
            hashes[position] = _hash_span(words, start, stop, _SHINGLE_SEED)
            start = _next_unit(text, start, in_words)


@kernel
def _next_unit(text: U8, position: int, in_words: bool) -> int:
    """Where the unit after the one at `position` begins, or the end of the text."""
    position += 1
    if in_words:
        while position < len(text) and text[position - 1] != SPACE:
            position += 1
    else:
        while position < len(text) and (text[position] & 0xC0) == 0x80:
            position += 1
    return min(position, len(text))


@kernel
def _sort_unique(hashes: U64, bounds: I64) -> I64:
    """Sorts and packs each document's hashes to the front of `hashes`; returns the new offsets."""
    offsets = np.zeros(len(bounds), np.int64)
    end = 0
    for row in range(len(bounds) - 1):
        first = end
        for value in np.sort(hashes[bounds[row] : bounds[row + 1]]):
            if end == first or value != hashes[end - 1]:
                hashes[end] = value
                end += 1
        offsets[row + 1] = end
    return offsets


# ---- the hash: xor, multiply, rotate over 8-byte words, then an avalanche
#
#     h = seed ^ length · M0
#     for each 8-byte word w, little-endian:  h = rotl27(h ^ rotl31((w ^ seed) · M1) · M2) · M1 + M3
#     h ^= h >> 32;  h *= M2;  h ^= h >> 29;  h *= M3;  h ^= h >> 32
#
# The last word is the last 8 bytes, overlapping the one before; a text under 8 bytes is one word, padded
# with zeros. The length in the first line keeps both unambiguous. Each step permutes the 64-bit numbers, so
# spans of one word and one length never collide. M0–M3 are the fractions of √2, √3, √5, √7, made odd.

_M0 = np.uint64(0x6A09E667F3BCC909)
_M1 = np.uint64(0xBB67AE8584CAA73B)
_M2 = np.uint64(0x3C6EF372FE94F82B)
_M3 = np.uint64(0xA54FF53A5F1D36F1)
_SHINGLE_SEED = np.uint64(0)
_TEXT_SEEDS = (0x510E527FADE682D1, 0x9B05688C2B3E6C1F)  # the fractions of √11 and √13


@kernel
def _hash_spans(data: U8, bounds: I64, seed: np.uint64) -> U64:
    hashes = np.empty(len(bounds) - 1, np.uint64)
    for row in range(len(hashes)):
        words = _words(data[bounds[row] : bounds[row + 1]])
        hashes[row] = _hash_span(words, 0, len(words), seed)
    return hashes


@kernel
def _words(text: U8) -> U64:
    """The eight bytes from each position on, little-endian; zeros go on the text."""
    words = np.empty(len(text), np.uint64)
    word = np.uint64(0)
    for position in range(len(text) - 1, -1, -1):
        word = (word << np.uint64(8)) | np.uint64(text[position])
        words[position] = word
    return words


@kernel
def _hash_span(words: U64, start: int, end: int, seed: np.uint64) -> np.uint64:
    """The hash of the bytes from `start` to `end` of the text that these are the words of."""
    length = end - start
    h = seed ^ (np.uint64(length) * _M0)
    for position in range(start, end - 7, 8):
        h = _absorb(h, words[position] ^ seed)
    if length > 8 and length % 8 != 0:
        h = _absorb(h, words[end - 8] ^ seed)
    elif 0 < length < 8:
        h = _absorb(h, (words[start] & ((np.uint64(1) << np.uint64(8 * length)) - np.uint64(1))) ^ seed)
    h = (h ^ (h >> np.uint64(32))) * _M2
    h = (h ^ (h >> np.uint64(29))) * _M3
    return h ^ (h >> np.uint64(32))


@kernel
def _absorb(h: np.uint64, word: np.uint64) -> np.uint64:
    word *= _M1
    h ^= ((word << np.uint64(31)) | (word >> np.uint64(33))) * _M2
    return ((h << np.uint64(27)) | (h >> np.uint64(37))) * _M1 + _M3
