"""Texts in UTF-8 → the segments that ftfy could change, and the texts with these changed.

A segment is what ftfy takes at once: a line with its end, or a million characters of it. Its flags are HARD, SOFT and
those below, as characters.py explains them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataproc.characters import (
    ALONE,
    COMPOSING,
    HARD,
    LETTER,
    MOJIBAKE,
    ODD,
    ODD_UNTIL_HTML,
    SOFT,
    STRONG,
    TELLING,
    U16,
    Characters,
)
from dataproc.dedup.kernel import I64, U8, kernel

SUSPICIOUS, UNORDERED, ENTITY, HTML = 4, 8, 16, 32
"""HTML: a `<` stands in the segment or before it, so ftfy leaves entities as they are."""
_BLOCK = 32
_TAB, _NEWLINE, _RETURN, _AMPERSAND, _LESS, _HASH, _A, _Z, _0, _9 = b"\t\n\r&<#az09"


class Changes(NamedTuple):
    """What becomes of the bytes from starts[i] to ends[i]: they are softened, or data[offsets[i] : offsets[i + 1]]."""

    starts: I64
    ends: I64
    softened: NDArray[np.bool_]
    data: U8
    offsets: I64


@kernel
def scan(data: U8, bounds: I64, table: Characters, longest: int) -> I64:
    """The segments that need anything, or a closer look: (start, end, flags)."""
    found = [(0, 0, 0)]
    found.pop()
    for row in range(len(bounds) - 1):
        at, end, html = bounds[row], bounds[row + 1], 0
        odd = at - 1
        while True:
            start = at
            if odd < at:  # else this goes on the line that has it, which was cut
                odd = _next_odd(data, at, end, table.odd, ODD if html else ODD | ODD_UNTIL_HTML)
                start = _line_start(data, at, odd)
            if odd == end:
                break
            at, flags = _segment(data, start, end, table.kinds, table.order, longest)
            html |= flags & HTML
            if html:
                flags = (flags & ~ENTITY) | HTML
            if flags & ~HTML:
                found.append((start, at, flags))
    segments = np.empty((len(found), 3), np.int64)
    for i, (start, at, flags) in enumerate(found):
        segments[i, 0], segments[i, 1], segments[i, 2] = start, at, flags
    return segments


@kernel
def _line_start(data: U8, first: int, at: int) -> int:
    """Where the line begins that holds the byte at a place, or `first` if that is later."""
    while at > first and data[at - 1] != _NEWLINE:
        at -= 1
    return at


@kernel
def _next_odd(data: U8, at: int, end: int, odd: U8, bits: int) -> int:
    """Where the next odd character begins."""
    while at < end:
        stop = min(at + _BLOCK, end)
        if stop - at < _BLOCK or _is_rough(data[at:stop], bits & ODD_UNTIL_HTML != 0):
            for i in range(at, stop):
                if odd[data[i], data[i + 1] if i + 1 < end else 0] & bits:
                    return i
        at = stop
    return end


@kernel
def _is_rough(block: U8, until_html: bool) -> bool:
    """Whether a block holds anything but plain ASCII. Of known length and with no way out, it is a few instructions."""
    rough = False
    for i in range(_BLOCK):
        byte = block[i]
        control = (byte < 0x20) & (byte != _NEWLINE) & (byte != _TAB)
        rough |= control | (byte >= 0x7F) | (((byte == _LESS) | (byte == _AMPERSAND)) & until_html)
    return rough


@kernel
def _segment(data: U8, start: int, end: int, kinds: U16, order: U8, longest: int) -> tuple[int, int]:
    """Where the segment that begins at `start` ends, and what is in it."""
    at, flags, before, order_before = start, 0, 0, 0
    for _ in range(longest):
        if at == end:
            return at, flags
        byte = data[at]
        code, width = _code_point(data, at)
        at += width
        kind = kinds[code]
        if kind == 0:
            before = order_before = 0
            continue
        if byte == _NEWLINE:
            return at, flags
        if byte == _LESS:
            flags |= HTML
        elif byte == _AMPERSAND and at < end and _may_begin_entity(data[at], kinds):
            flags |= ENTITY
        flags |= kind & (HARD | SOFT)
        if kind & ALONE or _are_suspicious(kind, before) or _are_suspicious(before, kind):
            flags |= SUSPICIOUS
        if order[code] == COMPOSING or 0 < order[code] < order_before:
            flags |= UNORDERED
        before, order_before = kind, order[code]
    if at < end and data[at - 1] == _RETURN and data[at] == _NEWLINE:
        flags |= HARD  # to ftfy the first of them stands alone
    return at, flags


@kernel
def _are_suspicious(kind: int, beside: int) -> bool:
    return (kind & TELLING != 0 and beside & MOJIBAKE != 0) or (kind & STRONG != 0 and beside & LETTER != 0)


@kernel
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
def _may_begin_entity(byte: int, kinds: U16) -> bool:
    """Whether an `&` before this byte may begin an entity, perhaps once other characters are replaced or deleted."""
    letter = _A <= (byte | 0x20) <= _Z
    digit = _0 <= byte <= _9
    return letter or digit or byte == _HASH or byte >= 0x80 or kinds[byte] & (HARD | SOFT) != 0


@kernel
def rewrite(data: U8, bounds: I64, changes: Changes, table: Characters, out: U8) -> I64:
    """Writes the rows as changed; returns the offsets."""
    offsets = np.zeros(len(bounds), np.int64)
    at, to, change = bounds[0], 0, 0
    for row in range(1, len(bounds)):
        while change < len(changes.starts) and changes.starts[change] < bounds[row]:
            to = _copy(data, at, changes.starts[change], out, to)
            at = changes.ends[change]
            if changes.softened[change]:
                to = _soften(data, changes.starts[change], at, table, out, to)
            else:
                to = _copy(changes.data, changes.offsets[change], changes.offsets[change + 1], out, to)
            change += 1
        to = _copy(data, at, bounds[row], out, to)
        at = bounds[row]
        offsets[row] = to
    return offsets


@kernel
def _copy(data: U8, at: int, end: int, out: U8, to: int) -> int:
    source, target = data[at:end], out[to : to + end - at]
    for i in range(len(source)):  # 30 times as fast as `target[:] = source`, which expects them to overlap
        target[i] = source[i]
    return to + len(source)


@kernel
def _soften(data: U8, at: int, end: int, table: Characters, out: U8, to: int) -> int:
    """Copies with SOFT characters replaced; returns where `out` ends."""
    while at < end:
        byte = data[at]
        if not table.soft_first[byte]:
            out[to] = byte
            at += 1
            to += 1
            continue
        code, width = _code_point(data, at)
        row = table.soft_row[code]
        at += width
        if byte == _RETURN:
            at += at < end and data[at] == _NEWLINE
        to = _copy(table.soft[row], 1, 1 + table.soft[row, 0], out, to) if row else _copy(data, at - width, at, out, to)
    return to
