"""Texts → cleaned texts: lower case, no ASCII punctuation, single spaces. SlimPajama's rule, Unicode included.

In: an Arrow array of strings, one row per document. Out: a large_string array of the same rows. Kernels clean UTF-8
in place of Python, but for the few texts for which one look at each character does not tell: those that may not be
NFC, and those with Σ, whose lower case depends on its neighbours, or with one of a dozen letters whose lower case
has another size in UTF-8. Python makes these NFC and lower first, then the kernels go on.
"""

import string
import unicodedata
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataproc.kernels.characters import tables
from dataproc.kernels.scratch import LONG, MARGIN, NEAR, scratch
from dataproc.native import I64, U8, Native

_PUNCTUATION = string.punctuation.encode()
SPACE = 0x20

_unsettled_spans = Native("dataproc.kernels.cleaning", "unsettled_spans")
_clean_rows = Native("dataproc.kernels.cleaning", "clean_rows")


def clean(text: str) -> str:
    """Lower case, no ASCII punctuation, runs of white space as one space, none at the ends; of the text's NFC.

    This is SlimPajama's normalisation before shingling, and the reference for the kernels.
    """
    kept = unicodedata.normalize("NFC", text).lower().encode().translate(None, _PUNCTUATION).decode()
    return " ".join(kept.split())


def clean_all(texts: pa.Array | pa.ChunkedArray) -> pa.LargeStringArray:
    """`clean` of every row. Raises ValueError on a null and TypeError on anything but strings."""
    parts = [_cleaned(rows) for rows in chunks_of(texts)]
    return pa.concat_arrays(parts) if len(parts) > 1 else parts[0]


def character_counts(cleaned: pa.LargeStringArray) -> I64:
    """Code points per row."""
    counts: I64 = pc.utf8_length(cleaned).to_numpy(zero_copy_only=False).astype(np.int64)
    return counts


class Rows(NamedTuple):
    """A string array as kernels see it: UTF-8 bytes, read-only, and where each row begins and the last ends."""

    data: U8
    offsets: I64


def rows_of(texts: pa.Array | pa.ChunkedArray) -> Rows:
    """All rows. Raises ValueError on a null and TypeError on anything but strings."""
    chunks = list(chunks_of(texts))
    if len(chunks) == 1:
        return chunks[0]
    sizes = np.concatenate([np.diff(rows.offsets) for rows in chunks])
    return Rows(np.concatenate([rows.data for rows in chunks]), offsets_of(sizes))


def chunks_of(texts: pa.Array | pa.ChunkedArray) -> Iterator[Rows]:
    """The rows of each chunk, without a copy of them; of no chunk, one without rows. Raises as `rows_of`."""
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise TypeError(f"texts are {texts.type}, expected string or large_string")
    if texts.null_count:
        row = pc.index(texts.is_null(), True).as_py()
        raise ValueError(f"texts: row {row} is null; drop or quarantine rows without a text first")
    chunks = texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
    return map(_rows, chunks or [pa.array([], pa.large_string())])


def _rows(array: pa.Array) -> Rows:
    _, offsets_buffer, data_buffer = array.buffers()
    if len(array) == 0:
        return Rows(np.zeros(0, np.uint8), np.zeros(1, np.int64))
    kind = np.dtype(np.int64 if pa.types.is_large_string(array.type) else np.int32)
    offsets = np.frombuffer(offsets_buffer, kind, len(array) + 1, offset=kind.itemsize * array.offset).astype(np.int64)
    data = np.frombuffer(data_buffer or b"", np.uint8)[offsets[0] : offsets[-1]]
    return Rows(data, offsets - offsets[0])


def settled(rows: Rows, numbers: I64) -> Rows:
    """Some rows, with what the kernels leave to Python in NFC and lower case. Raises ValueError if one is not UTF-8."""
    texts = [_settled(rows.data, start, stop) for start, stop in _spans(rows, numbers)]
    return Rows(np.frombuffer(b"".join(texts), np.uint8), offsets_of(np.array([len(text) for text in texts])))


def _settled(data: U8, start: int, stop: int) -> bytes:
    spans = np.empty(2 * ((stop - start) // NEAR + 1), np.int64)
    found = _unsettled_spans(data, start, stop, *tables(), spans)
    text: Any = memoryview(data)  # type: ignore[arg-type]  # an array of bytes is a buffer
    parts, at = [], start
    for first, end in spans[: 2 * found].reshape(-1, 2).tolist():
        parts += [text[at:first], _by_python(text[first:end])]
        at = end
    return b"".join([*parts, text[at:stop]])


def _by_python(text: memoryview) -> bytes:
    try:
        return unicodedata.normalize("NFC", str(text, "utf-8")).lower().encode()
    except UnicodeDecodeError as error:
        excerpt = bytes(text[max(0, error.start - 20) : error.end + 20])
        raise ValueError(f"a text is not UTF-8 ({error.reason}) at {excerpt!r}; decode or drop it first") from error


def raw_characters(rows: Rows, numbers: I64) -> I64:
    """Code points of some rows."""
    return np.array([_characters(rows.data[start:stop]) for start, stop in _spans(rows, numbers)], np.int64)


def _characters(text: U8) -> int:
    """All bytes but 10xxxxxx begin one. Counted a million at a time: what NumPy makes of them is large."""
    return sum(int(np.count_nonzero(text[at : at + LONG] & 0xC0 != 0x80)) for at in range(0, len(text), LONG))


def _spans(rows: Rows, numbers: I64) -> Iterator[tuple[int, int]]:
    return zip(rows.offsets[numbers].tolist(), rows.offsets[numbers + 1].tolist(), strict=True)


def split(rows: Rows, parts: int) -> list[Rows]:
    """So many ranges of rows, or fewer, of about equal size in bytes. Their offsets are into the data of all."""
    shares = rows.offsets[0] + (rows.offsets[-1] - rows.offsets[0]) * np.arange(1, parts) // parts
    cuts = sorted({0, *np.searchsorted(rows.offsets, shares).tolist(), len(rows.offsets) - 1})
    return [Rows(rows.data, rows.offsets[a : b + 1]) for a, b in pairwise(cuts)] or [rows]


def longest(rows: Rows) -> int:
    """The size of the longest row, in bytes."""
    return int(np.diff(rows.offsets).max(initial=0))


def offsets_of(sizes: I64) -> I64:
    """Where each row begins, and the last ends, if rows of these sizes lie side by side."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def _cleaned(rows: Rows) -> pa.LargeStringArray:
    cleaned, unsettled = _run(rows, is_settled=False)
    numbers = np.flatnonzero(unsettled)
    if not len(numbers):
        return cleaned
    others, again = _run(settled(rows, numbers), is_settled=True)
    assert not again.any(), "a settled text is not"
    if len(numbers) == len(cleaned):
        return others
    sources = np.arange(len(cleaned))
    sources[numbers] = len(cleaned) + np.arange(len(numbers))
    return pa.concat_arrays([cleaned, others]).take(pa.array(sources))


def _run(rows: Rows, *, is_settled: bool) -> tuple[pa.LargeStringArray, U8]:
    count = len(rows.offsets) - 1
    out = np.empty(len(rows.data) + MARGIN, np.uint8)
    offsets, unsettled = np.zeros(count + 1, np.int64), np.empty(count, np.uint8)
    block = scratch(0).block
    _clean_rows(*rows, *tables(), is_settled, block, out, offsets, unsettled)
    data = pa.py_buffer(out[: offsets[-1]])
    return pa.LargeStringArray.from_buffers(count, pa.py_buffer(offsets), data), unsettled
