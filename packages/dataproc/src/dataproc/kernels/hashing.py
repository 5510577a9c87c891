"""Spans of bytes → 64-bit hashes; a cleaned text → those of its shingles.

    low(p), high(p)   the halves of a product p of two 64-bit numbers
    fold(a, b)        low(a · b) ^ high(a · b)

A span of bytes, in chunks of 16, the last of 1 to 16 bytes:

    h = fold(seed ^ SECRET, LENGTH) ^ length · LENGTH
    each chunk but the last:   h = fold(first 8 bytes ^ SECRET, other 8 bytes ^ h)
    the last:                  p = (first 8 bytes ^ SECRET) · (last 8 bytes ^ h),   h = fold(low(p) ^ LENGTH, high(p))

The first and last 8 bytes of the last chunk overlap if it is shorter than 16. Of one shorter than 8, the first are its
bytes at the top of the word, and the last are its bytes at the bottom. The empty span is two words of zeros. SECRET's
top byte is none of UTF-8's, so that no text makes that factor zero.

A shingle of n characters is the span of its bytes. A shingle of n words w₁ … wₙ, each hashed as a span, is

    h = w₁ · BASEⁿ⁻¹ + … + wₙ · BASE⁰ mod 2⁶⁴,   then   h ^= h >> 32;  h *= MIX;  h ^= h >> 32

so that the next one takes two multiplications, whatever n is.

Texts lie in an array with MARGIN bytes before and behind them that may be read.
"""

import numpy as np

from dataproc.kernels.build import part
from dataproc.kernels.scratch import BLOCK, HASHES, MARGIN
from dataproc.kernels.vectors import copy, count, fold, fold_twice, foreign, load8, lowest, spaces, starts
from dataproc.native import I64, U8, U64

SECRET = np.uint64(0xFF51AFD7ED558CCD)
LENGTH = np.uint64(0x9E3779B97F4A7C15)
SHINGLE = np.uint64(0x6A09E667F3BCC909)  # seeds: √2, …
TEXT_A = np.uint64(0x510E527FADE682D1)  # … √11 and √13, their fractions
TEXT_B = np.uint64(0x9B05688C2B3E6C1F)
BASE = np.uint64(0xD1342543DE82EF93)  # 3 mod 8: BASEᵏ - 1 has as few factors of 2 as can be, one for odd k
MIX = np.uint64(0xA54FF53A5F1D36F1)

DONE = -1
_0, _1, _ALL = np.uint64(0), np.uint64(1), np.uint64(2**64 - 1)
_32, _64 = np.uint64(32), np.uint64(64)


def hash_rows(data: U8, offsets: I64, seeds: U64, text: U8, out: U64) -> int:
    """Each row's span under each seed: `out` has one number per row and seed. `text` has room for the longest row."""
    for row in range(len(offsets) - 1):
        start, stop = offsets[row], offsets[row + 1]
        inside = start >= 8 and stop + 8 <= len(data)
        if not inside:
            start, stop = MARGIN, load_row(data, start, stop, text)
        for i in range(len(seeds)):
            out[row * len(seeds) + i] = span(data if inside else text, start, stop, seeds[i])
    return 0


def count_units(data: U8, offsets: I64, in_words: int, text: U8, counts: I64) -> int:
    """How many words, or characters, each row of cleaned texts has."""
    for row in range(len(offsets) - 1):
        stop = load_row(data, offsets[row], offsets[row + 1], text)
        units = int(in_words and stop > MARGIN)
        for at in range(MARGIN, stop, BLOCK):
            mask = spaces(text, at) if in_words else starts(text, at)
            units += count(mask & below(min(BLOCK, stop - at)))
        counts[row] = units
    return 0


def hash_shingles(
    data: U8,
    offsets: I64,
    in_words: int,
    n: int,
    text: U8,
    state: I64,
    ring: U64,
    places: I64,
    hashes: U64,
) -> int:
    """The hashes of all shingles of cleaned texts, one after the other. There is room for one more."""
    to = 0
    for row in range(len(offsets) - 1):
        stop = load_row(data, offsets[row], offsets[row + 1], text)
        begin(stop, state, ring)
        while state[0] != DONE:
            to += next_shingles(text, stop, in_words, n, state, ring, places, hashes, to)
    return to


def hashes_between(
    bounds: U64,
    stop: int,
    in_words: int,
    n: int,
    text: U8,
    state: I64,
    ring: U64,
    places: I64,
    block: U64,
    hashes: U64,
    to: int,
) -> int:
    """Of a row that `count_units` has left in `text`: the hashes from bounds[0] to bounds[1], both included.

    Written to `hashes` from `to` on until it is full (less than HASHES are free) or the text ends (state[0] is DONE);
    returns how far. Goes on where the last call has ended; a state of zeros is the beginning.
    """
    if state[0] == 0:
        begin(stop, state, ring)
    low, high = bounds[0], bounds[1]
    while state[0] != DONE and to + HASHES <= len(hashes):
        made = next_shingles(text, stop, in_words, n, state, ring, places, block, 0)
        for i in range(made):
            h = block[np.uint64(i)]
            hashes[np.uint64(to)] = h
            to += (low <= h) & (h <= high)
    return to


@part
def load_row(data: U8, start: int, stop: int, text: U8) -> int:
    """Copies a row into `text` from MARGIN on and returns where it ends there."""
    to = MARGIN
    while start + BLOCK <= len(data) and start < stop:
        copy(text, to, data, start)
        start += BLOCK
        to += BLOCK
    for i in range(stop - start):
        text[to + i] = data[start + i]
    return to + stop - start


@part
def span(text: U8, start: int, stop: int, seed: np.uint64) -> np.uint64:
    h = _begun(stop - start, seed)
    while stop - start > 16:
        h = fold(load8(text, start) ^ SECRET, load8(text, start + 8) ^ h)
        start += 16
    return _last_chunk(text, start, stop, h)


@part
def text_hash(text: U8, start: int, stop: int) -> tuple[np.uint64, np.uint64]:
    """The span under both seeds for whole texts."""
    a, b = _begun(stop - start, TEXT_A), _begun(stop - start, TEXT_B)
    while stop - start > 16:
        first, second = load8(text, start) ^ SECRET, load8(text, start + 8)
        a, b = fold(first, second ^ a), fold(first, second ^ b)
        start += 16
    return _last_chunk(text, start, stop, a), _last_chunk(text, start, stop, b)


@part
def _begun(length: int, seed: np.uint64) -> np.uint64:
    """A seed is folded first: xored to the text as it is, two seeds would swap places with two texts."""
    h: np.uint64 = fold(seed ^ SECRET, LENGTH) ^ (np.uint64(length) * LENGTH)
    return h


@part
def _last_chunk(text: U8, start: int, stop: int, h: np.uint64) -> np.uint64:
    first, last = _0, _0
    if start < stop:
        spare = _64 - np.uint64(8 * min(stop - start, 8))
        first, last = load8(text, start) << spare, load8(text, stop - 8) >> spare
    whole: np.uint64 = fold_twice(first ^ SECRET, last ^ h, LENGTH)
    return whole


# ---- shingles, up to a block of them at a time. `state` says where to go on:
#
#     [0]   the byte where to look on, or DONE
#     [1]   words: where the word begins that has not ended yet
#     [2]   words: how many there were
#     [3]   words: the sum of the last n


@part
def begin(stop: int, state: I64, ring: U64) -> None:
    state[0], state[1], state[2], state[3] = (MARGIN if stop > MARGIN else DONE), MARGIN, 0, 0
    for i in range(len(ring)):
        ring[i] = _0


@part
def next_shingles(
    text: U8, stop: int, in_words: int, n: int, state: I64, ring: U64, places: I64, hashes: U64, to: int
) -> int:
    """Writes those that come next, HASHES at most, to `hashes` from `to` on and returns how many they are."""
    if in_words:
        return _words(text, stop, n, state, ring, hashes, to)
    return _characters(text, stop, n, state, places, hashes, to)


@part
def _words(text: U8, stop: int, n: int, state: I64, ring: U64, hashes: U64, to: int) -> int:
    at, start, seen, h = state[0], state[1], state[2], np.uint64(state[3])
    made, leaving = 0, _power(BASE, n)
    while at <= stop and made <= HASHES - BLOCK:
        ends = spaces(text, at)
        if stop - at < BLOCK:  # the text's end ends a word too
            end = _1 << np.uint64(stop - at)
            ends = (ends & (end - _1)) | end
        while ends != _0:
            end_of_word = at + lowest(ends)
            ends &= ends - _1
            word = span(text, start, end_of_word, SHINGLE)
            start = end_of_word + 1
            h = h * BASE + word - ring[np.uint64((seen - n) & (len(ring) - 1))] * leaving
            ring[np.uint64(seen & (len(ring) - 1))] = word
            seen += 1
            hashes[np.uint64(to + made)] = _mixed(h)
            made += seen >= n
        at += BLOCK
    state[0], state[1], state[2], state[3] = (at if at <= stop else DONE), start, seen, np.int64(h)
    return made


@part
def _power(base: np.uint64, exponent: int) -> np.uint64:
    power = _1
    for _ in range(exponent):
        power *= base
    return power


@part
def _mixed(h: np.uint64) -> np.uint64:
    h = (h ^ (h >> _32)) * MIX
    return h ^ (h >> _32)


@part
def _characters(text: U8, stop: int, n: int, state: I64, places: I64, hashes: U64, to: int) -> int:
    """Where n bytes in a row are ASCII, shingles begin at every byte. Elsewhere characters are located first."""
    start, made = state[0], 0
    while start != DONE and made < HASHES:
        room = HASHES - made
        ascii_ = _ascii_bytes(text, start, min(stop, start + room + n))
        if ascii_ >= n:
            run = min(room, ascii_ - n + 1)
            _ascii_shingles(text, start, n, run, hashes, to + made)
            made += run
            start = start + run if start + run + n <= stop else DONE
        elif room < BLOCK and made:
            break  # the characters up to the end of the first shingle would be located twice
        else:
            found, located = _locate(text, start, stop, n, room, places)
            run = max(0, min(room, found - n))
            for i in range(run):
                hashes[np.uint64(to + made)] = span(text, places[np.uint64(i)], places[np.uint64(i + n)], SHINGLE)
                made += 1
            start = DONE if located and run >= found - n else places[run]
    state[0] = start
    return made


@part
def _ascii_shingles(text: U8, start: int, n: int, run: int, hashes: U64, to: int) -> None:
    """Shingles of n bytes at each of `run` bytes in a row. Up to 16 bytes, all but one chunk is the same for all."""
    if n <= 16:
        h = _begun(n, SHINGLE)
        for i in range(run):
            hashes[np.uint64(to + i)] = _last_chunk(text, start + i, start + i + n, h)
    else:
        for i in range(run):
            hashes[np.uint64(to + i)] = span(text, start + i, start + i + n, SHINGLE)


@part
def _ascii_bytes(text: U8, start: int, stop: int) -> int:
    """How many bytes in a row are ASCII."""
    at = start
    while at < stop:
        mask = foreign(text, at)
        if mask != _0:
            stop = min(stop, at + lowest(mask))
            break
        at += BLOCK
    return stop - start


@part
def _locate(text: U8, start: int, stop: int, n: int, room: int, places: I64) -> tuple[int, bool]:
    """Where characters begin from `start` on: for some shingles, at least one if there is one, until a block is ASCII.

    Returns how many were found, the text's end counted as one, and whether that was reached.
    """
    found, at = 0, start
    while at < stop and found < n + room:
        mask = starts(text, at) & below(min(BLOCK, stop - at))
        if mask == _ALL and found > n:
            return found, False
        while mask != _0:
            places[np.uint64(found)] = at + lowest(mask)
            mask &= mask - _1
            found += 1
        at += BLOCK
    if at < stop:
        return found, False
    places[found] = stop
    return found + 1, True


@part
def below(n: int) -> np.uint64:
    """The lowest n bits, 1 ≤ n ≤ 64."""
    return _ALL >> np.uint64(BLOCK - n)
