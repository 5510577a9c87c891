"""Texts in UTF-8 → their words, and where in them the grams of an index are. letters.py says what a word is.

A gram that begins at a word is the shortest run of words from there that weighs enough, so there is at most one for
every word, and it is the same run wherever these words stand. Its hash is that of the words' hashes w₁ … wₖ,

    w₁ · BASEᵏ⁻¹ + … + wₖ · BASE⁰ mod 2⁶⁴, mixed

which the next one gets by two multiplications. A hash that is known is never trusted: the words themselves are read
again and compared with the item's, character by character.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from dataproc.compiled import kernel, part
from dataproc.decontaminate.letters import (
    ALONE,
    CODE,
    IGNORED,
    KIND_SHIFT,
    LETTER,
    OTHER,
    SEVERAL,
    SPACE,
    U32,
    WORD,
    Letters,
)
from dataproc.native import I64, U8, U64

HASH, WRITE, COMPARE = 0, 1, 2
"""What becomes of a word's characters beside its hash."""
RING = 256
"""Words that are remembered; a gram has at most 128."""
HEAD, NGRAM = 0, 1
"""Kinds of runs of words: that of the weight of the shortest item, which every gram begins with, and that of an n-gram.
An item that is shorter than an n-gram is known by its head alone, and all of it has to be there."""

_SEED, _FACTOR = np.uint64(0xCBF29CE484222325), np.uint64(0x9E3779B97F4A7C15)
_BASE, _MIX = np.uint64(0xD1342543DE82EF93), np.uint64(0xA54FF53A5F1D36F1)
_HEAD = np.uint64(0x6A09E667F3BCC909)
_0, _1, _26, _32, _63 = np.uint64(0), np.uint64(1), np.uint64(26), np.uint64(32), np.uint64(63)
_COLUMNS = 7
FULL = -1


class Index(NamedTuple):
    """What is looked for. Groups of postings, ascending by hash; those of a group have the same words.

    hashes, low, high    by group: its hash, and words[low:high], what has to stand there
    postings             by group, one more: where its postings begin
    item, start, end     by posting: the item, and the characters of its text
    slots                an open table of the first group of each hash, or -1
    sieve                bits, most of them 0, by the hashes of heads
    items                how many there are
    """

    words: U32
    hashes: U64
    low: I64
    high: I64
    postings: I64
    item: I64
    start: I64
    end: I64
    slots: I64
    sieve: U64
    items: I64


@kernel
def powers(count: int) -> U64:
    """BASE⁰, BASE¹, …"""
    found = np.empty(count, np.uint64)
    power = _1
    for i in range(count):
        found[i] = power
        power *= _BASE
    return found


@part
def mixed(h: np.uint64, kind: int) -> np.uint64:
    """A hash for the table, other ones for each kind."""
    if kind == HEAD:
        h ^= _HEAD
    h = (h ^ (h >> _32)) * _MIX
    return h ^ (h >> _32)


@part
def token(
    data: U8, at: int, end: int, character: int, table: Letters, words: U32, to: int, mode: int
) -> tuple[int, int, int, int, int, np.uint64, int, int]:
    """The next word from a byte on, whose character has this number.

    Returns where to go on (byte, character); where the word begins (byte, character) and ends (character); its hash;
    its weight, 0 if there is none and -1 if it is not the one in `words`; and where `words` goes on.
    """
    h, weight, first, start, stop = _SEED, 0, at, character, character
    while at < end:
        byte = data[np.uint64(at)]
        plain = table.plain[byte]
        if plain < OTHER:
            if plain:
                if weight == 0:
                    first, start, weight = at, character, WORD
                elif weight == 1:
                    break
                h = (h ^ np.uint64(plain)) * _FACTOR
                if mode == WRITE:
                    words[to] = plain
                elif mode == COMPARE and words[to] != plain:
                    return at, character, first, start, stop, h, -1, to
                to += 1
                stop = character + 1
            at += 1
            character += 1
            continue
        code, width = _code_point(data, at)
        entry = np.int64(table.entries[code])
        kind = entry >> KIND_SHIFT
        if kind == SPACE:
            if weight:
                break
        elif kind != IGNORED:
            if weight == 0:
                first, start = at, character
                weight = 1 if kind == ALONE else WORD
            elif kind == ALONE or (kind == LETTER and weight == 1):
                break
            place = entry & CODE
            count = np.int64(table.spelled[place]) if entry & SEVERAL else 1
            for i in range(count):
                written = table.spelled[place + 1 + i] if entry & SEVERAL else np.uint32(place)
                h = (h ^ np.uint64(written)) * _FACTOR
                if mode == WRITE:
                    words[to] = written
                elif mode == COMPARE and words[to] != written:
                    return at, character, first, start, stop, h, -1, to
                to += 1
            stop = character + 1
        at += width
        character += 1
    if weight and mode == WRITE:
        words[to] = 0
        to += 1
    elif weight and mode == COMPARE:
        if words[to] != 0:
            return at, character, first, start, stop, h, -1, to
        to += 1
    return at, character, first, start, stop, h, weight, to


@part
def _code_point(data: U8, at: int) -> tuple[np.int64, int]:
    """The code point at a place in UTF-8, and how many bytes it takes."""
    first = np.int64(data[at])
    if first < 0x80:
        return first, 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | (data[at + 1] & 0x3F), 2
    if first < 0xF0:
        return (first & 0x0F) << 12 | (data[at + 1] & 0x3F) << 6 | (data[at + 2] & 0x3F), 3
    return (first & 7) << 18 | (data[at + 1] & 0x3F) << 12 | (data[at + 2] & 0x3F) << 6 | (data[at + 3] & 0x3F), 4


@kernel
def spell(data: U8, offsets: I64, table: Letters, words: U32, tokens: I64, hashes: U64, bounds: I64) -> int:
    """All words of all rows. Fills `words` (each word's characters, then a 0), `tokens` (start and end in characters,
    place in `words`, weight) and `hashes` by word, and `bounds` by row. Returns how much of `words` is used.
    """
    to, count = 0, 0
    for row in range(len(offsets) - 1):
        at, character = offsets[row], 0
        while True:
            low = to
            at, character, _, start, stop, h, weight, to = token(
                data, at, offsets[row + 1], character, table, words, to, WRITE
            )
            if weight == 0:
                break
            tokens[count, 0], tokens[count, 1], tokens[count, 2], tokens[count, 3] = start, stop, low, weight
            hashes[count] = h
            count += 1
        bounds[row + 1] = count
    return to


@kernel
def grams(tokens: I64, hashes: U64, bounds: I64, needs: I64, power: U64, out: I64, out_hashes: U64) -> int:
    """The grams of items: (item, first word, word after the last, kind) and, in two columns, the mixed hash of each and
    that of its head.

    needs: the weights of both kinds of runs. Returns how many there are.
    """
    made = 0
    for item in range(len(bounds) - 1):
        low, high = bounds[item], bounds[item + 1]
        whole = np.int64(0)
        for i in range(low, high):
            whole += tokens[i, 3]
        if whole < needs[HEAD]:
            continue
        kind = NGRAM if whole >= needs[NGRAM] else HEAD
        for run in range(2):  # as many runs of either kind begin in an item, or more heads
            if run > kind:
                continue
            h, weight, first, at = _0, np.int64(0), low, made
            for i in range(low, high):
                h = h * _BASE + hashes[i]
                weight += tokens[i, 3]
                while weight >= needs[run]:
                    out[at, 0], out[at, 1], out[at, 2], out[at, 3] = item, first, i + 1, kind
                    out_hashes[at, run] = mixed(h, run)
                    at += 1
                    h -= hashes[first] * power[i - first]
                    weight -= tokens[first, 3]
                    first += 1
        if kind == HEAD:
            out[made, 2], out_hashes[made, NGRAM], at = high, out_hashes[made, HEAD], made + 1
        made = at
    return made


@kernel
def same_words(words: U32, low: int, high: int, other: int) -> bool:
    """Whether words[low:high] stands at `other` too."""
    for i in range(high - low):  # noqa: SIM110 - kernels have no generators
        if words[low + i] != words[other + i]:
            return False
    return True


@kernel
def group_starts(words: U32, hashes: U64, low: I64, high: I64, kinds: I64) -> I64:
    """Where grams, ascending by hash, begin to be another one than that before: by hash, and by their words."""
    found = np.empty(len(hashes), np.int64)
    count = 0
    for i in range(len(hashes)):
        same = i > 0 and hashes[i] == hashes[i - 1] and kinds[i] == kinds[i - 1] == NGRAM
        if not (
            same and high[i] - low[i] == high[i - 1] - low[i - 1] and same_words(words, low[i], high[i], low[i - 1])
        ):
            found[count] = i
            count += 1
    return found[:count].copy()


@kernel
def hash_table(hashes: U64, heads: U64, slots: I64, sieve: U64) -> None:
    """Fills the table by the hashes of groups, ascending, and the bits by those of heads. Lengths are powers of two."""
    mask, bits = np.uint64(len(slots) - 1), np.uint64(len(sieve) - 1)
    for group in range(len(hashes)):
        h = hashes[group]
        if group > 0 and h == hashes[group - 1]:
            continue
        place = h & mask
        while slots[place] >= 0:
            place = (place + _1) & mask
        slots[place] = group
    for h in heads:
        sieve[(h >> _32) & bits] |= _1 << ((h >> _26) & _63)


@kernel
def find(data: U8, offsets: I64, table: Letters, index: Index, needs: I64, power: U64) -> I64:
    """Where in the rows the grams of items are: (row, item, start, end, start and end in the item, grams).

    Grams of an item at words that follow one another are one span; its end in the item is the furthest of theirs.
    """
    found, count, visit = np.empty((1024, _COLUMNS), np.int64), 0, 0
    ring_hash, ring = np.empty(RING, np.uint64), np.empty((RING, 4), np.int64)
    last_N3 = np.full((index.items[0], 3), -1, np.int64)  # by item: visit, word and span of its last gram
    row = 0
    while row < len(offsets) - 1:
        made = _find_in_row(
            data, offsets[row], offsets[row + 1], row, table, index, needs, power, ring_hash, ring, visit, last_N3,
            found, count,
        )  # fmt: skip
        visit += 1
        if made == FULL:  # once more with twice the room
            more = np.empty((2 * len(found), _COLUMNS), np.int64)
            more[:count] = found[:count]
            found = more
        else:
            count = made
            row += 1
    return found[:count].copy()


@part
def _find_in_row(
    data: U8,
    at: int,
    end: int,
    row: int,
    table: Letters,
    index: Index,
    needs: I64,
    power: U64,
    ring_hash: U64,
    ring: I64,
    visit: int,
    last_N3: I64,
    found: I64,
    count: int,
) -> int:
    """Adds the spans of a row and returns how many there are now, or FULL.

    ring: of the last words, where each begins (byte, character), its weight, and whether a head may begin there.
    """
    head_first, gram_first = np.int64(0), np.int64(0)
    head_weight, gram_weight = np.int64(0), np.int64(0)
    head, gram = _0, _0
    head_needs, gram_needs = needs[HEAD], needs[NGRAM]
    bits = np.uint64(len(index.sieve) - 1)
    character, word = 0, np.int64(0)
    while True:
        at, character, begins, start, _, hashed, weighs, _ = token(
            data, at, end, character, table, index.words, 0, HASH
        )
        if weighs == 0:
            return count
        place = np.uint64(word & (RING - 1))
        ring_hash[place] = hashed
        ring[place, 0], ring[place, 1], ring[place, 2] = begins, start, weighs
        head, gram = head * _BASE + hashed, gram * _BASE + hashed
        head_weight += weighs
        gram_weight += weighs
        while head_weight >= head_needs:
            place = np.uint64(head_first & (RING - 1))
            key = mixed(head, HEAD)
            known = index.sieve[(key >> _32) & bits] >> ((key >> _26) & _63) & _1
            ring[place, 3] = np.int64(known)
            if known:
                count = _note_all(data, end, row, head_first, key, table, index, ring, visit, last_N3, found, count)
                if count == FULL:
                    return FULL
            head -= ring_hash[place] * power[np.uint64(word - head_first)]
            head_weight -= ring[place, 2]
            head_first += 1
        while gram_weight >= gram_needs:
            place = np.uint64(gram_first & (RING - 1))
            if ring[place, 3]:
                key = mixed(gram, NGRAM)
                count = _note_all(data, end, row, gram_first, key, table, index, ring, visit, last_N3, found, count)
                if count == FULL:
                    return FULL
            gram -= ring_hash[place] * power[np.uint64(word - gram_first)]
            gram_weight -= ring[place, 2]
            gram_first += 1
        word += 1


@part
def _note_all(
    data: U8,
    end: int,
    row: int,
    word: np.int64,
    key: np.uint64,
    table: Letters,
    index: Index,
    ring: I64,
    visit: int,
    last_N3: I64,
    found: I64,
    count: int,
) -> int:
    """Adds what begins at a word by the groups of a hash whose words stand there. Returns the spans, or FULL."""
    group = _group(index, key)
    at, start = ring[word & (RING - 1), 0], ring[word & (RING - 1), 1]
    while 0 <= group < len(index.hashes) and index.hashes[group] == key and count != FULL:
        stop = _end_of_match(data, at, end, start, table, index, group)
        if stop >= 0:
            count = _note(found, count, row, word, start, stop, index, group, visit, last_N3)
        group += 1
    return count


@part
def _group(index: Index, key: np.uint64) -> int:
    """The first group of a hash, or -1."""
    mask = np.uint64(len(index.slots) - 1)
    place = key & mask
    while index.slots[place] >= 0:
        if index.hashes[index.slots[place]] == key:
            return int(index.slots[place])
        place = (place + _1) & mask
    return -1


@part
def _end_of_match(data: U8, at: int, end: int, character: int, table: Letters, index: Index, group: int) -> int:
    """The character at which the words of a group end if they stand here; else -1."""
    to, stop = index.low[group], -1
    while to < index.high[group]:
        at, character, _, _, stop, _, weight, to = token(data, at, end, character, table, index.words, to, COMPARE)
        if weight <= 0:
            return -1
    return stop


@part
def _note(
    found: I64,
    count: int,
    row: int,
    word: np.int64,
    start: int,
    stop: int,
    index: Index,
    group: int,
    visit: int,
    last_N3: I64,
) -> int:
    """Adds the postings of a group: to the spans that the word before is in, or as new ones."""
    for posting in range(index.postings[group], index.postings[group + 1]):
        item = index.item[posting]
        if last_N3[item, 0] == visit and last_N3[item, 1] == word - 1:
            span = last_N3[item, 2]
            found[span, 3] = max(found[span, 3], stop)
            found[span, 4] = min(found[span, 4], index.start[posting])
            found[span, 5] = max(found[span, 5], index.end[posting])
            found[span, 6] += 1
        else:
            if count == len(found):
                return FULL
            span = count
            found[span, 0], found[span, 1], found[span, 2], found[span, 3] = row, item, start, stop
            found[span, 4], found[span, 5], found[span, 6] = index.start[posting], index.end[posting], 1
            count += 1
        last_N3[item, 0], last_N3[item, 1], last_N3[item, 2] = visit, word, span
    return count
