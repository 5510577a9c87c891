"""Texts in UTF-8 → the segments that ftfy could change, and the texts with these changed (dataproc/segments.py)."""

from typing import NamedTuple

import numpy as np

from dataproc.kernels.build import part, signed
from dataproc.kernels.flags import (
    ALONE,
    COMPOSING,
    ENTITY,
    HARD,
    HTML,
    LETTER,
    MOJIBAKE,
    ODD,
    ODD_UNTIL_HTML,
    SOFT,
    STRONG,
    SUSPICIOUS,
    TELLING,
    UNORDERED,
)
from dataproc.kernels.scratch import BLOCK
from dataproc.kernels.vectors import copy, lowest, markup, not_plain
from dataproc.native import I64, U8, U16

_NEWLINE, _RETURN, _AMPERSAND, _LESS, _HASH, _A, _Z, _0, _9 = b"\n\r&<#az09"


def scan(data: U8, bounds: I64, kinds: U16, order: U8, odd: U8, longest: int, segments: I64) -> int:
    """The segments that need anything, or a closer look: (start, end, flags), flat. Returns how many there are, of
    which `segments` holds as many as have room. odd: (256, 256), flat.
    """
    found = 0
    for row in range(len(bounds) - 1):
        at, end, html = bounds[row], bounds[row + 1], 0
        next_odd = at - 1
        while True:
            start = at
            if next_odd < at:  # else this goes on the line that has it, which was cut
                next_odd = _next_odd(data, at, end, odd, ODD if html else ODD | ODD_UNTIL_HTML)
                start = _line_start(data, at, next_odd)
            if next_odd == end:
                break
            at, flags = _segment(data, start, end, kinds, order, longest)
            html |= flags & HTML
            if html:
                flags = (flags & ~ENTITY) | HTML
            if flags & ~HTML:
                if 3 * found < len(segments):
                    segments[3 * found], segments[3 * found + 1], segments[3 * found + 2] = start, at, flags
                found += 1
    return found


@part
def _line_start(data: U8, first: int, at: int) -> int:
    """Where the line begins that holds the byte at a place, or `first` if that is later."""
    while at > first and data[at - 1] != _NEWLINE:
        at -= 1
    return at


@part
def _next_odd(data: U8, at: int, end: int, odd: U8, bits: int) -> int:
    """Where the next odd character begins. All that can be begin with a byte that is not plain, or is markup."""
    while at < end:
        if at + BLOCK > len(data):
            if _is_odd(data, at, end, odd, bits):
                return at
            at += 1
            continue
        rough = not_plain(data, at)
        if bits & ODD_UNTIL_HTML:
            rough |= markup(data, at)
        while rough:
            place = at + int(lowest(rough))
            if place >= end:
                return end
            if _is_odd(data, place, end, odd, bits):
                return place
            rough &= rough - np.uint64(1)
        at += BLOCK
    return end


@part
def _is_odd(data: U8, at: int, end: int, odd: U8, bits: int) -> bool:
    following = signed(data[at + 1]) if at + 1 < end else 0
    return bool(odd[256 * signed(data[at]) + following] & bits)


@part
def _segment(data: U8, start: int, end: int, kinds: U16, order: U8, longest: int) -> tuple[int, int]:
    """Where the segment that begins at `start` ends, and what is in it."""
    at, flags, before, order_before = start, 0, 0, 0
    for _ in range(longest):
        if at == end:
            return at, flags
        byte = data[at]
        code, width = _code_point(data, at)
        at += width
        kind = signed(kinds[code])
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
        own_order = signed(order[code])
        if own_order == COMPOSING or 0 < own_order < order_before:
            flags |= UNORDERED
        before, order_before = kind, own_order
    if at < end and data[at - 1] == _RETURN and data[at] == _NEWLINE:
        flags |= HARD  # to ftfy the first of them stands alone
    return at, flags


@part
def _are_suspicious(kind: int, beside: int) -> bool:
    return (kind & TELLING != 0 and beside & MOJIBAKE != 0) or (kind & STRONG != 0 and beside & LETTER != 0)


@part
def _code_point(data: U8, at: int) -> tuple[int, int]:
    """The code point at a place in UTF-8, and how many bytes it takes."""
    first = signed(data[at])
    if first < 0x80:
        return first, 1
    if first < 0xE0:
        return (first & 0x1F) << 6 | _six(data, at + 1), 2
    if first < 0xF0:
        return (first & 0x0F) << 12 | _six(data, at + 1) << 6 | _six(data, at + 2), 3
    return (first & 7) << 18 | _six(data, at + 1) << 12 | _six(data, at + 2) << 6 | _six(data, at + 3), 4


@part
def _six(data: U8, at: int) -> int:
    """The bits of a byte that continues a character."""
    return signed(data[at]) & 0x3F


@part
def _may_begin_entity(byte: int, kinds: U16) -> bool:
    """Whether an `&` before this byte may begin an entity, perhaps once other characters are replaced or deleted."""
    letter = _A <= (byte | 0x20) <= _Z
    digit = _0 <= byte <= _9
    return letter or digit or byte == _HASH or byte >= 0x80 or kinds[byte] & (HARD | SOFT) != 0


class _Soft(NamedTuple):
    """Of `Characters`, what SOFT characters become."""

    rows: U16
    table: U8
    first: U8


def rewrite(
    data: U8,
    bounds: I64,
    starts: I64,
    ends: I64,
    softened: U8,
    fixed: U8,
    fixed_offsets: I64,
    soft_row: U16,
    soft: U8,
    soft_first: U8,
    out: U8,
    offsets: I64,
) -> int:
    """Writes the rows as `Changes` says, and their offsets. soft: rows of five, flat."""
    table = _Soft(soft_row, soft, soft_first)
    at, to, change = bounds[0], 0, 0
    offsets[0] = 0
    for row in range(1, len(bounds)):
        while change < len(starts) and starts[change] < bounds[row]:
            to = _copy(data, at, starts[change], out, to)
            at = ends[change]
            if softened[change]:
                to = _soften(data, starts[change], at, table, out, to)
            else:
                to = _copy(fixed, fixed_offsets[change], fixed_offsets[change + 1], out, to)
            change += 1
        to = _copy(data, at, bounds[row], out, to)
        at = bounds[row]
        offsets[row] = to
    return 0


@part
def _copy(data: U8, at: int, end: int, out: U8, to: int) -> int:
    while end - at >= BLOCK:
        copy(out, to, data, at)
        at += BLOCK
        to += BLOCK
    while at < end:
        out[to] = data[at]
        at += 1
        to += 1
    return to


@part
def _soften(data: U8, at: int, end: int, table: _Soft, out: U8, to: int) -> int:
    """Copies with SOFT characters replaced; returns where `out` ends."""
    while at < end:
        byte = data[at]
        if not table.first[byte]:
            out[to] = byte
            at += 1
            to += 1
            continue
        code, width = _code_point(data, at)
        row = 5 * signed(table.rows[code])
        at += width
        if byte == _RETURN:
            at += at < end and data[at] == _NEWLINE
        if row:
            to = _copy(table.table, row + 1, row + 1 + signed(table.table[row]), out, to)
        else:
            to = _copy(data, at - width, at, out, to)
    return to
