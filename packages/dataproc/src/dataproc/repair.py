"""Texts → texts as `ftfy.fix_text` makes them, at the speed of a scan where there is nothing to repair.

ftfy takes a text by segments: lines with their end, cut after each million characters. A scan of the UTF-8 finds those
that it could change (characters.py says why no others). Where only SOFT characters stand in its way, they are replaced
in passing; the other segments go to ftfy itself, unless a closer look at what was found shows that it would leave them.

SOFT characters can be replaced at once, though ftfy goes over its result again until nothing changes: what is put in is
plain and nothing is taken away (but the \r of \r\n), so nothing that was apart meets, and the second look finds nothing.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import NamedTuple

import ftfy
import numpy as np
import pyarrow as pa
from ftfy.badness import BADNESS_RE
from ftfy.chardata import HTML_ENTITY_RE
from numpy.typing import NDArray

from dataproc.characters import ALONE, COMPOSING, HARD, MOJIBAKE, ORDERED, SOFT, TELLING, Characters, characters
from dataproc.dedup.cleaning import Rows, rows_of
from dataproc.dedup.kernel import I64, U8, kernel

FIX = ftfy.TextFixerConfig(normalization="NFC", explain=False)
_FIX_HTML = FIX._replace(unescape_html=False)

SUSPICIOUS, UNORDERED, ENTITY, HTML = 4, 8, 16, 32
"""Of a segment, beside HARD and SOFT. HTML: a `<` stands in it or before it, so entities are left as they are."""

_REACH = 8
"""No match of ftfy's pattern of mojibake is longer (the tests look)."""
_BLOCK = 32
_TAB, _NEWLINE, _RETURN, _AMPERSAND, _LESS, _HASH, _A, _Z, _0, _9 = b"\t\n\r&<#az09"


def repair(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """`ftfy.fix_text(text, FIX)` of every row."""
    rows = rows_of(texts)
    table = characters()
    softened, segments = _scan(rows.data, rows.offsets, table.kinds, table.order, FIX.max_decode_length)
    patches = _patches(rows, segments)
    if not softened.any() and not len(patches.starts):
        return texts
    out = np.empty(len(rows.data) + len(patches.data), np.uint8)
    offsets = _rewrite(rows.data, rows.offsets, softened, patches, table, out)
    return pa.LargeStringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(out[: offsets[-1]]))


def fix_text(text: str) -> str:
    """`ftfy.fix_text(text, FIX)`."""
    return str(repair(pa.array([text], pa.large_string()))[0].as_py())


class _Patches(NamedTuple):
    """What stands for the bytes from starts[i] to ends[i]: data[offsets[i] : offsets[i + 1]]."""

    starts: I64
    ends: I64
    data: U8
    offsets: I64


def _patches(rows: Rows, segments: I64) -> _Patches:
    """The segments that ftfy changes, as it makes them."""
    found: list[tuple[int, int, bytes]] = []
    for start, end, flags in segments.tolist():
        segment = rows.data[start:end].tobytes().decode()
        if _may_change(segment, flags):
            fixed = ftfy.fix_text_segment(segment, _FIX_HTML if flags & HTML else FIX)
            found.append((start, end, fixed.encode()))
    bounds = np.array([(start, end) for start, end, _ in found], np.int64).reshape(-1, 2)
    data = np.frombuffer(b"".join(fixed for *_, fixed in found), np.uint8)
    offsets = np.cumsum([0, *(len(fixed) for *_, fixed in found)], dtype=np.int64)
    return _Patches(bounds[:, 0].copy(), bounds[:, 1].copy(), data, offsets)


def _may_change(segment: str, flags: int) -> bool:
    return bool(
        flags & (HARD | SOFT)
        or (flags & ENTITY and HTML_ENTITY_RE.search(segment))
        or (flags & SUSPICIOUS and _may_be_mojibake(segment))
        or (flags & UNORDERED and not unicodedata.is_normalized("NFC", segment))
    )


def _may_be_mojibake(segment: str) -> bool:
    """`ftfy.badness.is_bad`, at the suspicious places alone: its pattern takes a µs for every few characters."""
    places = _suspicious().finditer(segment)
    return any(BADNESS_RE.search(segment, max(0, m.start() - _REACH), m.end() + _REACH) for m in places)


@cache
def _suspicious() -> re.Pattern[str]:
    kinds = characters().kinds
    alone, telling, named = ("".join(map(chr, np.flatnonzero(kinds & bit))) for bit in (ALONE, TELLING, MOJIBAKE))
    return re.compile(f"[{alone}]|[{telling}][{named}]|[{named}][{telling}]")


# ---- on bytes


@kernel
def _scan(data: U8, bounds: I64, kinds: U8, order: U8, longest: int) -> tuple[NDArray[np.bool_], I64]:
    """Which rows have something to soften, and the segments that need a closer look: (start, end, flags)."""
    softened = np.zeros(len(bounds) - 1, np.bool_)
    found = [(0, 0, 0)]
    found.pop()
    for row in range(len(softened)):
        at, end, html = bounds[row], bounds[row + 1], 0
        while True:
            start = _next_odd(data, at, end, html)
            if start == end:
                break
            while start > at and data[start - 1] != _NEWLINE:
                start -= 1
            at, flags = _segment(data, start, end, kinds, order, longest)
            html |= flags & HTML
            if html:
                flags = (flags & ~ENTITY) | HTML
            if flags & ~(SOFT | HTML):
                found.append((start, at, flags))
            elif flags & SOFT:
                softened[row] = True
    segments = np.empty((len(found), 3), np.int64)
    for i, (start, at, flags) in enumerate(found):
        segments[i, 0], segments[i, 1], segments[i, 2] = start, at, flags
    return softened, segments


@kernel
def _next_odd(data: U8, at: int, end: int, html: int) -> int:
    """Where the next byte stands that is not plain ASCII, or, until there was a `<`, is one or an `&`."""
    less, ampersand = (0xFF, 0xFF) if html else (_LESS, _AMPERSAND)
    while at < end:
        stop = min(at + _BLOCK, end)
        odd = False
        for byte in data[at:stop]:  # without a way out, so that it is done 32 bytes at a time
            odd |= (byte >= 0x7F) | ((byte < 0x20) & (byte != _NEWLINE) & (byte != _TAB)) | (byte == less) | (byte == ampersand)
        if odd:
            break
        at = stop
    while at < end:
        byte = data[at]
        if byte >= 0x7F or (byte < 0x20 and byte != _NEWLINE and byte != _TAB) or byte == less or byte == ampersand:
            return at
        at += 1
    return end


@kernel
def _segment(data: U8, start: int, end: int, kinds: U8, order: U8, longest: int) -> tuple[int, int]:
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
        if kind & ALONE or (kind & TELLING and before & MOJIBAKE) or (kind & MOJIBAKE and before & TELLING):
            flags |= SUSPICIOUS
        if kind & COMPOSING or 0 < order[code] < order_before:
            flags |= UNORDERED
        before, order_before = kind, order[code]
    if at < end and data[at - 1] == _RETURN and data[at] == _NEWLINE:
        flags |= HARD  # to ftfy the first of them stands alone
    return at, flags


@kernel
def _code_point(data: U8, at: int) -> tuple[int, int]:
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
def _may_begin_entity(byte: int, kinds: U8) -> bool:
    """Whether an `&` before this byte may begin an entity, perhaps once other characters are replaced or deleted."""
    letter = _A <= (byte | 0x20) <= _Z
    digit = _0 <= byte <= _9
    return letter or digit or byte == _HASH or byte >= 0x80 or kinds[byte] & (HARD | SOFT) != 0


@kernel
def _rewrite(data: U8, bounds: I64, softened: NDArray[np.bool_], patches: _Patches, table: Characters, out: U8) -> I64:
    """Writes the rows with their patches, and softened between them; returns the offsets."""
    offsets = np.zeros(len(bounds), np.int64)
    patch = to = 0
    for row in range(len(softened)):
        at, end = bounds[row], bounds[row + 1]
        while at < end:
            patched = patch < len(patches.starts) and patches.starts[patch] < end
            stop = patches.starts[patch] if patched else end
            to = _soften(data, at, stop, table, out, to) if softened[row] else _copy(data, at, stop, out, to)
            at = stop
            if patched:
                to = _copy(patches.data, patches.offsets[patch], patches.offsets[patch + 1], out, to)
                at = patches.ends[patch]
                patch += 1
        offsets[row + 1] = to
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
