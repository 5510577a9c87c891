"""Raw text → cleaned text, 64 bytes at a time. `dataproc.dedup.cleaning` says what cleaned means.

White space, punctuation and what is not ASCII are masks of 64 bits, one per byte, and what is kept follows from a
dozen operations on masks. Each character beyond ASCII is looked up in the tables of `characters`: in a copy of the
block, its lower case is written over it, and white space becomes a space.
"""

import numpy as np

from dataproc.kernels.build import part, signed
from dataproc.kernels.characters import CLASS_SHIFT, LOWER, SPACE, UNSETTLED
from dataproc.kernels.scratch import BLOCK, LONG, MARGIN, NEAR
from dataproc.kernels.vectors import (
    PACKS,
    classify,
    copy,
    copy_cleaned,
    count,
    foreign,
    leads,
    load4,
    lowest,
    pack_cleaned,
)
from dataproc.native import I64, U8, U16, U32

NOT_SETTLED = -1  # the row needs Python's help first: `dataproc.dedup.cleaning.settled`

_0, _1, _2, _ALL = np.uint64(0), np.uint64(1), np.uint64(2), np.uint64(2**64 - 1)


def clean_rows(
    data: U8,
    offsets: I64,
    pages: U16,
    entries: U32,
    settled: int,
    block: U8,
    out: U8,
    out_offsets: I64,
    unsettled: U8,
) -> int:
    """Cleaned rows side by side. A row that is not settled is left empty and marked."""
    to = 0
    for row in range(len(offsets) - 1):
        end, _ = clean_row(data, offsets[row], offsets[row + 1], pages, entries, settled, block, out, to)
        unsettled[row] = end == NOT_SETTLED
        if end != NOT_SETTLED:
            to = end
        out_offsets[row + 1] = to
    return 0


def unsettled_spans(data: U8, start: int, stop: int, pages: U16, entries: U32, spans: I64) -> int:
    """Where a row needs Python's help: (start, stop) in `spans`, from white space to white space around each such
    character, those near each other as one. Returns how many there are.

    Nothing composes with a character up to 0x20 or looks past it, so the rest of the row does not depend on them.
    """
    found, at, last = 0, start, start
    mark, mark_class = -1, 0
    while at < stop:
        if data[at] < 0x80:
            at = min(stop, at + lowest(foreign(data, at))) if at + BLOCK <= len(data) else at + 1
            continue
        size, entry = _entry_at(data, at, stop, pages, entries)
        combining = entry >> CLASS_SHIFT
        unsettled = entry & UNSETTLED != 0 or (combining != 0 and combining < mark_class and at == mark)
        at += size
        if combining != 0:
            mark, mark_class = at, combining
        if not unsettled:
            continue
        first = at - size
        while first > last and data[first - 1] > 0x20:
            first -= 1
        while at < stop and data[at] > 0x20:
            at += 1
        if found == 0 or first - last >= NEAR or last - spans[2 * found - 2] >= LONG:
            spans[2 * found] = first
            found += 1
        last = at
        spans[2 * found - 1] = last
    return found


@part
def _entry_at(data: U8, at: int, stop: int, pages: U16, entries: U32) -> tuple[int, int]:
    """Size and entry of the character beyond ASCII at a place; of what is not UTF-8, one byte that is not settled."""
    word = 0
    if at + 4 <= len(data):
        word = load4(data, at)
    else:
        for i in range(stop - at):
            word |= signed(data[at + i]) << 8 * i
    size, code, valid = _decode(word)
    if data[at] < 0xC0 or not valid or at + size > stop:
        return 1, UNSETTLED
    return size, signed(entries[(signed(pages[code >> 8]) << 8) | (code & 0xFF)])


@part
def clean_row(
    data: U8, start: int, stop: int, pages: U16, entries: U32, settled: int, block: U8, out: U8, first: int
) -> tuple[int, int]:
    """Cleans data[start:stop] into `out` from `first` on. Returns where it ends there (or NOT_SETTLED), and how many
    characters the raw text has."""
    at, to, extra = start, first, 0
    mark, mark_class = -1, 0
    spaced = True  # nothing, or a space, was the last to be kept
    while at < stop:
        n = min(BLOCK, stop - at)
        readable = at + MARGIN <= len(data)
        source, base = (data, at) if readable else (block, 0)
        if not readable:
            for i in range(n):
                block[i] = data[at + i]
        white, dropped, other = classify(source, base)
        other &= _below(n)
        if other != _0:
            if readable:
                copy(block, 0, data, at)
            source, base = block, 0
            n, more, white, dropped, mark, mark_class = _look_up(
                block, at, n, stop - at, other, white, dropped, pages, entries, settled, mark, mark_class
            )
            if n == NOT_SETTLED:
                return NOT_SETTLED, 0
            extra += more
        kept, spaced = _kept(white & _below(n), dropped & _below(n), _below(n), spaced)
        to = _write(out, to, source, base, kept)
        at += n
    if spaced and to > first:
        to -= 1
    return to, stop - start - extra


@part
def _below(n: int) -> np.uint64:
    """The lowest n bits, 1 ≤ n ≤ 64."""
    return _ALL >> np.uint64(BLOCK - n)


@part
def _kept(white: np.uint64, dropped: np.uint64, valid: np.uint64, spaced: bool) -> tuple[np.uint64, bool]:
    """All but what is dropped, and of white space only what comes right after a word, dropped bytes not counted."""
    words = valid & ~(white | dropped)
    after = (words << _1) | np.uint64(not spaced)
    after |= (after & dropped) + dropped  # the carry runs through the dropped bytes to the one after them
    kept = words | (white & after & ~dropped)
    return kept, bool(white > words) if (white | words) != _0 else spaced  # which of them has the highest bit


@part
def _write(out: U8, to: int, text: U8, at: int, kept: np.uint64) -> int:
    if PACKS:
        pack_cleaned(out, to, text, at, kept)
        to += count(kept)
        return to
    if kept == _ALL:
        copy_cleaned(out, to, text, at)
        return to + BLOCK
    while kept != _0:
        skipped = lowest(kept)
        kept >>= np.uint64(skipped)
        at += skipped
        copy_cleaned(out, to, text, at)  # too much: the next run overwrites what is not of this one
        run = lowest(~kept)
        kept >>= np.uint64(run)
        at += run
        to += run
    return to


@part
def _look_up(
    block: U8,
    at: int,
    n: int,
    rest: int,
    other: np.uint64,
    white: np.uint64,
    dropped: np.uint64,
    pages: U16,
    entries: U32,
    settled: int,
    mark: int,
    mark_class: int,
) -> tuple[int, int, np.uint64, np.uint64, int, int]:
    """The characters beyond ASCII of a block of n bytes, of which `rest` are left in the row.

    Returns how many bytes were taken (fewer than n if a character is cut by the block's end, NOT_SETTLED if Python
    has to see to the row), how many of them continue a character, the masks, and the last combining mark seen.
    """
    extra = continued = 0
    left = leads(block, 0) & _below(n)
    while left != _0:
        i = lowest(left)
        left &= left - _1
        size, code, valid = _decode(load4(block, i))
        if i + size > n:
            if size > rest - i:
                return NOT_SETTLED, 0, _0, _0, 0, 0
            n = i
            break
        if not valid:
            return NOT_SETTLED, 0, _0, _0, 0, 0
        extra += size - 1
        continued += size
        entry = signed(entries[(signed(pages[code >> 8]) << 8) | (code & 0xFF)])
        if entry == 0:
            continue
        combining = entry >> CLASS_SHIFT
        out_of_order = combining != 0 and combining < mark_class and at + i == mark
        if (entry & UNSETTLED or out_of_order) and not settled:
            return NOT_SETTLED, 0, _0, _0, 0, 0
        if combining != 0:
            mark, mark_class = at + i + size, combining
        if entry & SPACE:
            block[i] = 0x20
            white |= _1 << np.uint64(i)
            dropped |= ((_1 << np.uint64(size)) - _2) << np.uint64(i)
        elif entry & LOWER:
            _encode(block, i, size, (code + (entry & LOWER)) & LOWER)
    if count(other & _below(n)) != continued:  # a byte 10xxxxxx that continues nothing
        return NOT_SETTLED, 0, _0, _0, 0, 0
    return n, extra, white, dropped, mark, mark_class


@part
def _decode(word: int) -> tuple[int, int, bool]:
    """The character that begins with a byte ≥ 0xC0, of which the word holds the next four: its size in bytes, its
    code point, and whether that is UTF-8. What has a shorter form, and surrogates, are UNSETTLED in the tables."""
    if word & 0xFF < 0xE0:
        return 2, (word & 0x1F) << 6 | (word >> 8) & 0x3F, word & 0xC000 == 0x8000
    if word & 0xFF < 0xF0:
        code = (word & 0xF) << 12 | (word >> 2) & 0xFC0 | (word >> 16) & 0x3F
        return 3, code, (word & 0xC0C000 == 0x808000) & (code >= 0x800)
    code = (word & 7) << 18 | (word << 4) & 0x3F000 | (word >> 10) & 0xFC0 | (word >> 24) & 0x3F
    return 4, code, (word & 0xC0C0C000 == 0x80808000) & (word & 0xFF < 0xF8) & (code >= 0x10000) & (code <= 0x10FFFF)


@part
def _encode(block: U8, at: int, size: int, code: int) -> None:
    """A code point as UTF-8, over one of the same size."""
    for i in range(size - 1, 0, -1):
        block[at + i] = 0x80 | code & 0x3F
        code >>= 6
    block[at] = (0xC0 if size == 2 else 0xE0 if size == 3 else 0xF0) | code
