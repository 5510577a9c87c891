"""Hashes → the minima of all permutations of them; raw texts → signatures in one go.

A hash that is among the last few thousand of its document changes no minimum and can be left out. Of shingles of 13
characters these are 7 to 23 of 100 in English text and 30 in code, in books 2. To find them takes as long as it takes
one hash in eight to meet the permutations, so where they are fewer only one block of hashes in four is looked through.
"""

import numpy as np

from dataproc.kernels.build import part
from dataproc.kernels.cleaning import NOT_SETTLED, clean_row
from dataproc.kernels.hashing import DONE, begin, next_shingles, text_hash
from dataproc.kernels.scratch import HASHES, LANES, MARGIN, WIDE_LANES
from dataproc.kernels.vectors import fill, lower_minima, lower_wide_minima, mix32
from dataproc.native import I64, U8, U16, U32, U64

UNSIGNED = np.uint32(2**32 - 1)  # the minimum of nothing
_WORTH_IT = 8  # one repeat in so many hashes
_BLIND = 3  # blocks that are not looked through where it is not


def sketch_rows(
    data: U8,
    offsets: I64,
    pages: U16,
    entries: U32,
    settled: int,
    in_words: int,
    n: int,
    factors: U32,
    terms: U32,
    wide_factors: U64,
    wide_terms: U64,
    block: U8,
    text: U8,
    state: I64,
    ring: U64,
    places: I64,
    hashes: U64,
    mixed: U32,
    seen: U32,
    signatures: U32,
    shingles: I64,
    text_hashes: U64,
    characters: I64,
    unsettled: U8,
) -> int:
    """Everything that the `sign` stage stores of each row. Of a row that is not settled only that is said."""
    width, blind = len(factors) + len(wide_factors), 0
    for row in range(len(offsets) - 1):
        start, end = offsets[row], offsets[row + 1]
        stop, raw_characters = clean_row(data, start, end, pages, entries, settled, block, text, MARGIN)
        unsettled[row] = stop == NOT_SETTLED
        if stop == NOT_SETTLED:
            continue
        characters[row] = raw_characters
        text_hashes[2 * row], text_hashes[2 * row + 1] = text_hash(text, MARGIN, stop)
        base, total = row * width, 0
        _forget(signatures, base, width)
        last_place = _empty(seen, stop - MARGIN)
        begin(stop, state, ring)
        while state[0] != DONE:
            made = next_shingles(text, stop, in_words, n, state, ring, places, hashes, 0)
            total += made
            if len(wide_factors) != 0:
                _lower_wide(hashes, made, wide_factors, wide_terms, signatures, base)
            else:
                blind = _lower(hashes, made, mixed, seen, last_place, blind, factors, terms, signatures, base)
        shingles[row] = total
    return 0


def sign_rows(
    given: U64,
    offsets: I64,
    factors: U32,
    terms: U32,
    wide_factors: U64,
    wide_terms: U64,
    hashes: U64,
    mixed: U32,
    seen: U32,
    signatures: U32,
) -> int:
    """Signatures from the hashes of each row."""
    width, blind = len(factors) + len(wide_factors), 0
    for row in range(len(offsets) - 1):
        base = row * width
        _forget(signatures, base, width)
        last_place = _empty(seen, offsets[row + 1] - offsets[row])
        for first in range(offsets[row], offsets[row + 1], HASHES):
            made = min(HASHES, offsets[row + 1] - first)
            for i in range(made):
                hashes[i] = given[first + i]
            if len(wide_factors) != 0:
                _lower_wide(hashes, made, wide_factors, wide_terms, signatures, base)
            else:
                blind = _lower(hashes, made, mixed, seen, last_place, blind, factors, terms, signatures, base)
    return 0


@part
def _forget(signatures: U32, base: int, width: int) -> None:
    for k in range(0, width, LANES):
        fill(signatures, base + k, UNSIGNED)


@part
def _empty(seen: U32, characters: int) -> np.uint32:
    """Empties as much of `seen` as so many characters need: a power of two of places, of which it returns the last.

    A number has its place by its lowest bits, so 1 says of any place but place 1 that nothing is there.
    """
    places = 4 * LANES
    while places < characters and places < len(seen):
        places *= 2
    for at in range(0, places, LANES):
        fill(seen, at, np.uint32(1))
    seen[1] = 0
    return np.uint32(places - 1)


@part
def _lower(
    hashes: U64,
    made: int,
    mixed: U32,
    seen: U32,
    last_place: np.uint32,
    blind: int,
    factors: U32,
    terms: U32,
    signatures: U32,
    base: int,
) -> int:
    """A block of hashes meets all permutations. `blind`, and what it returns for the next block: how many blocks more
    are not looked through for repeats."""
    for first in range(0, made, LANES):
        mix32(hashes, first, mixed, first)
    if blind == 0:
        kept = _unseen(mixed, made, seen, last_place)
        blind = _BLIND if (made - kept) * _WORTH_IT < made else 0
        made = kept
    else:
        blind -= 1
    for k in range(0, len(factors), LANES):
        lower_minima(mixed, made, factors, terms, k, signatures, base + k)
    return blind


@part
def _unseen(mixed: U32, made: int, seen: U32, last_place: np.uint32) -> int:
    """Moves the numbers that were not seen lately to the front and returns how many they are."""
    kept = 0
    for i in range(made):
        h = mixed[np.uint64(i)]
        place = h & last_place
        mixed[np.uint64(kept)] = h
        kept += seen[place] != h
        seen[place] = h
    return kept


@part
def _lower_wide(hashes: U64, made: int, factors: U64, terms: U64, signatures: U32, base: int) -> None:
    for i in range(made):
        h = hashes[i] & np.uint64(0xFFFFFFFF)
        for k in range(0, len(factors), WIDE_LANES):
            lower_wide_minima(h, factors, terms, k, signatures, base + k)
