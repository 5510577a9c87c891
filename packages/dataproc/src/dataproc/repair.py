r"""Texts → texts as `ftfy.fix_text` makes them, at the speed of a scan where there is nothing to repair.

ftfy takes a text by segments: lines with their end, cut after each million characters. A scan of the UTF-8 finds those
that it could change (characters.py says why no others). If all there is to a segment are SOFT characters, they are
replaced in passing; any other is taken through ftfy's steps as a string, each step where there may be work for it.

SOFT characters can be replaced at once, though ftfy goes over its result again until nothing changes. What is put in is
plain, and nothing is taken away but the \r of \r\n: nothing meets that was apart, so a second look would find nothing.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import ftfy
import numpy as np
import pyarrow as pa
from ftfy import fixes
from ftfy.badness import BADNESS_RE

from dataproc.characters import CHARACTER_STEPS, characters
from dataproc.dedup.cleaning import Rows, rows_of
from dataproc.kernels.flags import ALONE, HARD, HTML, LETTER, MOJIBAKE, SOFT, STRONG, TELLING
from dataproc.native import I64
from dataproc.segments import Changes, rewrite, scan

FIX = ftfy.TextFixerConfig(normalization="NFC", explain=False)

_REACH = 8
"""No match of ftfy's pattern of mojibake is longer (the tests look)."""


def repair(texts: pa.LargeStringArray) -> pa.LargeStringArray:
    """`ftfy.fix_text(text, FIX)` of every row."""
    rows = rows_of(texts)
    table = characters()
    changes = _changes(rows, scan(rows, table, FIX.max_decode_length))
    return rewrite(rows, changes, table) if len(changes.starts) else texts


def fix_text(text: str) -> str:
    """`ftfy.fix_text(text, FIX)`."""
    return str(repair(pa.array([text], pa.large_string()))[0].as_py())


def _changes(rows: Rows, segments: I64) -> Changes:
    """The segments that ftfy changes, and how."""
    softened = (segments[:, 2] & ~HTML) == SOFT
    changed = softened.copy()
    fixed: list[bytes] = [b""] * len(segments)
    for i in np.flatnonzero(~softened).tolist():
        start, end, flags = segments[i].tolist()
        before = rows.data[start:end].tobytes()
        fixed[i] = _fixed(before.decode(), flags).encode()
        changed[i] = fixed[i] != before
    kept = [data for data, change in zip(fixed, changed.tolist(), strict=True) if change]
    data = np.frombuffer(b"".join(kept), np.uint8)
    offsets = np.cumsum([0, *map(len, kept)], dtype=np.int64)
    starts, ends = (np.ascontiguousarray(segments[changed, column]) for column in (0, 1))
    return Changes(starts, ends, softened[changed], data, offsets)


# ---- a segment, as a string


def _fixed(segment: str, flags: int) -> str:
    """`ftfy.fix_text_segment`: its steps in their order until none changes anything, each if there is work for it."""
    while True:
        before = segment
        if not flags & HTML and "&" in segment:
            segment = fixes.unescape_html(segment)
        if _is_bad(segment):
            segment = ftfy.fix_encoding(segment)
        if _touched().search(segment):
            for step in CHARACTER_STEPS:
                segment = step(segment)
        segment = unicodedata.normalize("NFC", segment)
        if segment == before:
            return segment


def _is_bad(segment: str) -> bool:
    """`ftfy.badness.is_bad`, at the suspicious places alone: its pattern takes a µs for every three characters."""
    places = _suspicious().finditer(segment)
    return any(BADNESS_RE.search(segment, max(0, m.start() - _REACH), m.end() + _REACH) for m in places)


@cache
def _touched() -> re.Pattern[str]:
    return re.compile(f"[{''.join(map(re.escape, _named(HARD | SOFT)))}]")


@cache
def _suspicious() -> re.Pattern[str]:
    pairs = ((_named(TELLING), _named(MOJIBAKE)), (_named(STRONG), _named(LETTER)))
    beside = "".join(f"|[{one}][{other}]|[{other}][{one}]" for one, other in pairs)
    return re.compile(f"[{_named(ALONE)}]{beside}")


def _named(kinds: int) -> str:
    return "".join(map(chr, np.flatnonzero(characters().kinds & kinds)))
