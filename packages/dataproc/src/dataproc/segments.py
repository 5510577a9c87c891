"""Texts in UTF-8 → the segments that ftfy could change, and the texts with these changed.

A segment is what ftfy takes at once: a line with its end, or a million characters of it. Its flags are HARD, SOFT and
those beside them in kernels/flags.py, as characters.py explains them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.characters import Characters
from dataproc.dedup.cleaning import Rows
from dataproc.native import I64, U8, Native

_scan = Native("dataproc.kernels.segments", "scan")
_rewrite = Native("dataproc.kernels.segments", "rewrite")

_BYTES_PER_SEGMENT = 32
"""There is room for one in so many bytes; of a text that has more, all are found in a second pass."""


class Changes(NamedTuple):
    """What becomes of the bytes from starts[i] to ends[i]: they are softened, or data[offsets[i] : offsets[i + 1]]."""

    starts: I64
    ends: I64
    softened: NDArray[np.bool_]
    data: U8
    offsets: I64


def scan(rows: Rows, table: Characters, longest: int) -> I64:
    """The segments (S, 3) that need anything, or a closer look: start, end, flags. longest: characters of one."""
    arrays = (rows.data, rows.offsets, table.kinds, table.order, table.odd.reshape(-1))
    room = 1024 + len(rows.data) // _BYTES_PER_SEGMENT
    while True:
        segments_S3 = np.empty((room, 3), np.int64)
        found = _scan(*arrays, longest, segments_S3.reshape(-1))
        if found <= room:
            return segments_S3[:found].copy()
        room = found


def rewrite(rows: Rows, changes: Changes, table: Characters) -> pa.LargeStringArray:
    """The texts as changed."""
    out = np.empty(len(rows.data) + len(changes.data), np.uint8)
    offsets = np.empty(len(rows.offsets), np.int64)
    softened = changes.softened.view(np.uint8)
    soft = (table.soft_row, table.soft.reshape(-1), table.soft_first.view(np.uint8))
    changed = (changes.starts, changes.ends, softened, changes.data, changes.offsets)
    _rewrite(rows.data, rows.offsets, *changed, *soft, out, offsets)
    buffers = pa.py_buffer(offsets), pa.py_buffer(out[: offsets[-1]])
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, *buffers)
