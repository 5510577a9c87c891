"""Blocks of JSON lines → the text of each line in one Arrow buffer, and what else its record holds.

A scan finds the text of a line: the first string that follows `"<field>":`. It is unescaped straight into the buffer,
and orjson parses only the rest of the line. That the place is right is not assumed but proven, line by line. In the
rest a placeholder stands for the text. If it comes out as the record's field, it stands where the value of that field
does (of several of that name, the last), and a line with another valid string in its place is as valid.
It is the placeholder that comes out, and not an equal string from elsewhere, if nothing else in the rest can spell it:
neither its character nor an escape. If there is either, a second placeholder has to come out as well.

Lines of any other kind are odd. rows.py reads those one by one, and says what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import orjson
import polars as pl
import pyarrow as pa

from dataproc.kernels.flags import BACKSLASH, NO_DIGIT, ODD_LINE, QUOTE
from dataproc.native import U8, Native

_cut = Native("dataproc.kernels.jsonl", "cut")

_FIRST, _SECOND = "\x7f", "\x7f\x7f"
"""Placeholders, which no text is likely to hold. One byte is looked for thirty times as fast as two."""
_DELETE = 0x7F
_BACKSLASH = bytes([BACKSLASH])


class Lines(NamedTuple):
    """Lines of a block: texts, one row each (empty for an odd one), where each begins and ends, and its text within.

    `at` is (start, text_start, text_end, end) per line, the quotes of the text included, the line's \n not; text_start
    is ODD_LINE if the line is odd. `end` is where the next line begins.
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
    found_N5 = np.empty((block.count(b"\n", start), 5), np.int64)
    found_N5 = found_N5[: _cut(data, start, key, size, _STOPS, _ESCAPES, _HEX, out, found_N5.reshape(-1))]
    at, offsets = found_N5[:, :4], np.concatenate([np.zeros(1, np.int64), found_N5[:, 4]])
    buffers = pa.py_buffer(offsets), pa.py_buffer(out[: offsets[-1]])
    texts = pa.LargeStringArray.from_buffers(len(at), *buffers)
    if not are_utf8(texts):
        at[[not _is_utf8(block[text_start:text_end]) for _, text_start, text_end, _ in at.tolist()], 1] = ODD_LINE
    return Lines(texts, at.tolist(), int(at[-1, 3]) + 1)


def rest(block: bytes, start: int, text_start: int, text_end: int, end: int, field: str) -> dict[str, Any] | None:
    """The record of a line without its text, in whose place is something else; None if the line is odd after all."""
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


def _escapes() -> U8:
    """What a backslash before a byte makes of it; 0 where it makes nothing, or takes more bytes."""
    table = np.zeros(256, np.uint8)
    for escaped, byte in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
        table[escaped] = byte
    return table


def _hex() -> U8:
    """The value of a hexadecimal digit; NO_DIGIT for what is none."""
    table = np.full(256, NO_DIGIT, np.uint8)
    for digit in b"0123456789abcdefABCDEF":
        table[digit] = int(chr(digit), 16)
    return table


_ESCAPES, _HEX = _escapes(), _hex()
_STOPS = np.array([byte < 0x20 or byte in (QUOTE, BACKSLASH) for byte in range(256)]).view(np.uint8)
"""By byte: whether a run of plain characters stops there."""
