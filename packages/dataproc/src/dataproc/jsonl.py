"""Blocks of JSON lines → the text of each line in one Arrow buffer, and what else its record holds.

A scan finds the text of a line: the first string that follows `"<field>":`. It is unescaped straight into the buffer,
and orjson parses only the rest of the line. That the place is right is not assumed but proven, line by line. In the
rest a placeholder stands for the text. If it comes out as the record's field, it stands where the value of that field
does (of several of that name, the last), and a line with another valid string in its place is as valid.
It is the placeholder that comes out, and not an equal string from elsewhere, if nothing else in the rest can spell it:
neither its character nor an escape. If there is either, a second placeholder has to come out as well.

Lines of any other kind are ODD. rows.py reads those one by one, and says what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.kernel import I64, U8, kernel
from dataproc.dedup.kernels.scratch import BLOCK
from dataproc.dedup.kernels.vectors import copy, lowest, string_ends

ODD = -1
_FIRST, _SECOND = "\x7f", "\x7f\x7f"
"""Placeholders, which no text is likely to hold. One byte is looked for thirty times as fast as two."""
_DELETE = 0x7F
_QUOTE, _BACKSLASH, _COLON, _SPACE, _TAB, _RETURN, _NEWLINE, _U = b'"\\: \t\r\nu'
_NO_DIGIT = 16


class Lines(NamedTuple):
    """Lines of a block: texts, one row each (empty for an ODD one), where each begins and ends, and its text within.

    `at` is (start, text_start, text_end, end) per line, the quotes of the text included, the line's \n not; text_start
    is ODD if the line is. `end` is where the next line begins.
    """

    texts: pa.LargeStringArray
    at: list[list[int]]
    end: int


def blocks(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Lines up to the first that makes them `size` bytes, wherever chunks end. Each ends in \n, the last as well."""
    waiting: list[bytes] = []
    waits = 0
    for chunk in chunks:
        while end := chunk.find(b"\n", max(0, size - 1 - waits)) + 1:
            yield b"".join([*waiting, chunk[:end]])
            waiting, waits, chunk = [], 0, chunk[end:]
        waiting.append(chunk)
        waits += len(chunk)
    last = b"".join(waiting)
    if last:
        yield last if last.endswith(b"\n") else last + b"\n"


def lines(block: bytes, start: int, field: str, size: int) -> Lines:
    """The lines of a block from `start` on, up to the one whose text makes it `size` bytes."""
    data = np.frombuffer(block, np.uint8)
    key = np.frombuffer(orjson.dumps(field), np.uint8)
    out = np.empty(len(block) - start, np.uint8)
    at, offsets = _cut(data, start, key, size, _Tables(_STOPS, _ESCAPES, _HEX), out)
    buffers = pa.py_buffer(offsets), pa.py_buffer(out[: offsets[-1]])
    texts = pa.LargeStringArray.from_buffers(len(at), *buffers)
    if not are_utf8(texts):
        at[[not _is_utf8(block[text_start:text_end]) for _, text_start, text_end, _ in at.tolist()], 1] = ODD
    return Lines(texts, at.tolist(), int(at[-1, 3]) + 1)


def rest(block: bytes, start: int, text_start: int, text_end: int, end: int, field: str) -> dict[str, Any] | None:
    """The record of a line without its text, in whose place is something else; None if the line is ODD after all."""
    before, after = block[start:text_start], block[text_end:end]
    record = _with(before, _FIRST, after, field)
    if _DELETE in before or _DELETE in after or _BACKSLASH in before or _BACKSLASH in after:
        return None if _with(before, _SECOND, after, field) is None else record
    return record


def _with(before: bytes, placeholder: str, after: bytes, field: str) -> dict[str, Any] | None:
    try:
        record = orjson.loads(b'%b"%b"%b' % (before, placeholder.encode(), after))
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and record.get(field) == placeholder else None


def are_utf8(texts: pa.Array) -> bool:
    """Whether all strings of an array are valid."""
    try:
        pl.Series(texts.cast(pa.large_binary())).cast(pl.String)  # ten times as fast as Arrow's own check
    except pl.exceptions.ComputeError:
        return False
    return True


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


# ---- on bytes


class _Tables(NamedTuple):
    """By byte: whether a run of plain characters stops there; and the two below."""

    stops: NDArray[np.bool_]
    escapes: U8
    digits: U8


def _escapes() -> U8:
    """What a backslash before a byte makes of it; 0 where it makes nothing, or takes more bytes."""
    table = np.zeros(256, np.uint8)
    for escaped, byte in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
        table[escaped] = byte
    return table


def _hex() -> U8:
    """The value of a hexadecimal digit; _NO_DIGIT for what is none."""
    table = np.full(256, _NO_DIGIT, np.uint8)
    for digit in b"0123456789abcdefABCDEF":
        table[digit] = int(chr(digit), 16)
    return table


_ESCAPES, _HEX = _escapes(), _hex()
_STOPS = np.array([byte < 0x20 or byte in (_QUOTE, _BACKSLASH) for byte in range(256)])


@kernel
def _cut(data: U8, start: int, key: U8, size: int, tables: _Tables, out: U8) -> tuple[I64, I64]:
    """Fills `out` with the texts; returns (lines, 4) as in `Lines.at`, and the texts' offsets."""
    found = [(start, start, start, start, 0)]
    found.pop()
    to = 0
    while start < len(data) and to < size:
        at, text_start, text_end = start, _find_text(data, start, key), ODD
        if text_start != ODD:
            at, text_to = _unescape(data, text_start + 1, tables, out, to)
            if text_to == ODD:
                text_start = ODD
            else:
                text_end, to = at, text_to
        while data[at] != _NEWLINE:
            at += 1
        found.append((start, text_start, text_end, at, to))
        start = at + 1
    lines, offsets = np.empty((len(found), 4), np.int64), np.zeros(len(found) + 1, np.int64)
    for i, (start, text_start, text_end, end, to) in enumerate(found):
        lines[i, 0], lines[i, 1], lines[i, 2], lines[i, 3] = start, text_start, text_end, end
        offsets[i + 1] = to
    return lines, offsets


@kernel
def _find_text(data: U8, at: int, key: U8) -> int:
    """Where the first string after `key` and a colon begins in this line; ODD if there is none."""
    while data[at] != _NEWLINE:
        if data[at] == _QUOTE:
            same = 0
            while same < len(key) and data[at + same] == key[same]:
                same += 1
            if same == len(key):
                colon = _after_blanks(data, at + same)
                if data[colon] == _COLON:
                    value = _after_blanks(data, colon + 1)
                    if data[value] == _QUOTE:
                        return value
        at += 1
    return ODD


@kernel
def _after_blanks(data: U8, at: int) -> int:
    while data[at] == _SPACE or data[at] == _TAB or data[at] == _RETURN:
        at += 1
    return at


@kernel
def _unescape(data: U8, at: int, tables: _Tables, out: U8, to: int) -> tuple[int, int]:
    """Copies a string without its escapes; returns where the line goes on after its quote, and where `out` does.

    If it is no valid string, that is where it stops to be one, and ODD.
    """
    while True:
        run = _copy_run(data, at, tables.stops, out, to)
        at += run
        to += run
        byte = data[at]
        if byte == _QUOTE:
            return at + 1, to
        if byte != _BACKSLASH:
            return at, ODD
        escaped = tables.escapes[data[at + 1]]
        if escaped:
            out[to] = escaped
            at += 2
            to += 1
        elif data[at + 1] == _U:
            code, width = _escaped_code_point(data, at, tables.digits)
            if code == ODD:
                return at, ODD
            to = _encode(code, out, to)
            at += width
        else:
            return at, ODD


@kernel
def _copy_run(data: U8, at: int, stops: NDArray[np.bool_], out: U8, to: int) -> int:
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


@kernel
def _escaped_code_point(data: U8, at: int, digits: U8) -> tuple[int, int]:
    r"""What a \uXXXX stands for, or two of them for a code point above 0xFFFF, and their length; ODD if for nothing."""
    code = _four_digits(data, at + 2, digits)
    if not 0xD800 <= code < 0xE000:
        return code, 6
    if code < 0xDC00 and data[at + 6] == _BACKSLASH and data[at + 7] == _U:
        low = _four_digits(data, at + 8, digits)
        if 0xDC00 <= low < 0xE000:
            return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00), 12
    return ODD, 0


@kernel
def _four_digits(data: U8, at: int, digits: U8) -> int:
    code = 0
    for i in range(4):
        digit = digits[data[at + i]]
        if digit == _NO_DIGIT:
            return ODD
        code = code << 4 | digit
    return code


@kernel
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
