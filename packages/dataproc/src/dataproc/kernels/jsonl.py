"""A block of JSON lines → where the text of each lies, and all texts without their escapes (dataproc/jsonl.py).

The block ends in a newline, so a search for one needs no other end.
"""

from typing import NamedTuple

from dataproc.kernels.build import part
from dataproc.kernels.flags import BACKSLASH, NO_DIGIT, ODD_LINE, QUOTE
from dataproc.kernels.scratch import BLOCK
from dataproc.kernels.vectors import copy, lowest, string_ends
from dataproc.native import I64, U8

_COLON, _SPACE, _TAB, _RETURN, _NEWLINE, _U = b": \t\r\nu"


class _Tables(NamedTuple):
    """By byte: whether a run of plain characters stops there; what a backslash before it makes of it, or 0; and its
    value as a hexadecimal digit, or NO_DIGIT.
    """

    stops: U8
    escapes: U8
    digits: U8


def cut(data: U8, start: int, key: U8, size: int, stops: U8, escapes: U8, digits: U8, out: U8, lines: I64) -> int:
    """Takes the lines from `start` on, up to the one whose text makes `out` hold `size` bytes; returns how many.

    A row of `lines` (N, 5), flat, is one of `Lines.at`, and where `out` ends.
    """
    tables = _Tables(stops, escapes, digits)
    to = row = 0
    while start < len(data) and to < size:
        at, text_start, text_end = start, _find_text(data, start, key), ODD_LINE
        if text_start != ODD_LINE:
            at, text_to = _unescape(data, text_start + 1, tables, out, to)
            if text_to == ODD_LINE:
                text_start = ODD_LINE
            else:
                text_end, to = at, text_to
        while data[at] != _NEWLINE:
            at += 1
        lines[row], lines[row + 1], lines[row + 2], lines[row + 3], lines[row + 4] = start, text_start, text_end, at, to
        row += 5
        start = at + 1
    return row // 5


@part
def _find_text(data: U8, at: int, key: U8) -> int:
    """Where the first string after `key` and a colon begins in this line; ODD_LINE if there is none."""
    while data[at] != _NEWLINE:
        if data[at] == QUOTE:
            same = 0
            while same < len(key) and data[at + same] == key[same]:
                same += 1
            if same == len(key):
                colon = _after_blanks(data, at + same)
                if data[colon] == _COLON:
                    value = _after_blanks(data, colon + 1)
                    if data[value] == QUOTE:
                        return value
        at += 1
    return ODD_LINE


@part
def _after_blanks(data: U8, at: int) -> int:
    while data[at] == _SPACE or data[at] == _TAB or data[at] == _RETURN:
        at += 1
    return at


@part
def _unescape(data: U8, at: int, tables: _Tables, out: U8, to: int) -> tuple[int, int]:
    """Copies a string without its escapes; returns where the line goes on after its quote, and where `out` does.

    If it is no valid string, that is where it stops to be one, and ODD_LINE.
    """
    while True:
        run = _copy_run(data, at, tables.stops, out, to)
        at += run
        to += run
        byte = data[at]
        if byte == QUOTE:
            return at + 1, to
        if byte != BACKSLASH:
            return at, ODD_LINE
        escaped = tables.escapes[data[at + 1]]
        if escaped:
            out[to] = escaped
            at += 2
            to += 1
        elif data[at + 1] == _U:
            code, width = _escaped_code_point(data, at, tables.digits)
            if code == ODD_LINE:
                return at, ODD_LINE
            to = _encode(code, out, to)
            at += width
        else:
            return at, ODD_LINE


@part
def _copy_run(data: U8, at: int, stops: U8, out: U8, to: int) -> int:
    """Copies up to the first byte that stops it; returns how many that were. What follows in `out` is not defined."""
    run = 0
    while at + run + BLOCK <= len(data) and to + run + BLOCK <= len(out):
        copy(out, to + run, data, at + run)
        ends = string_ends(data, at + run)
        if ends:
            return run + int(lowest(ends))
        run += BLOCK
    while at + run < len(data) and not stops[data[at + run]]:
        out[to + run] = data[at + run]
        run += 1
    return run


@part
def _escaped_code_point(data: U8, at: int, digits: U8) -> tuple[int, int]:
    r"""What a \uXXXX, or two of them, stands for, and their length; ODD_LINE if for nothing."""
    code = _four_digits(data, at + 2, digits)
    if not 0xD800 <= code < 0xE000:
        return code, 6
    if code < 0xDC00 and data[at + 6] == BACKSLASH and data[at + 7] == _U:
        low = _four_digits(data, at + 8, digits)
        if 0xDC00 <= low < 0xE000:
            return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00), 12
    return ODD_LINE, 0


@part
def _four_digits(data: U8, at: int, digits: U8) -> int:
    code = 0
    for i in range(4):
        digit = digits[data[at + i]]
        if digit == NO_DIGIT:
            return ODD_LINE
        code = code << 4 | digit
    return code


@part
def _encode(code: int, out: U8, to: int) -> int:
    """Writes a code point as UTF-8; returns where the next goes."""
    if code < 0x80:
        out[to] = code
        return to + 1
    if code < 0x800:
        out[to], out[to + 1] = 0xC0 | code >> 6, 0x80 | code & 0x3F
        return to + 2
    if code < 0x10000:
        out[to], out[to + 1], out[to + 2] = 0xE0 | code >> 12, 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F
        return to + 3
    out[to], out[to + 1] = 0xF0 | code >> 18, 0x80 | code >> 12 & 0x3F
    out[to + 2], out[to + 3] = 0x80 | code >> 6 & 0x3F, 0x80 | code & 0x3F
    return to + 4
