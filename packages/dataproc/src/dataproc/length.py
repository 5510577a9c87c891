"""Texts → whether enough of them is left when they are cleaned for shingling, row by row.

Most texts are long, and their first few hundred bytes show it: cleaning makes at least one character of each that is
neither white space nor ASCII punctuation. Only the texts that have too few of those are cleaned.
"""

from __future__ import annotations

import unicodedata
from functools import cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.cleaning import character_counts, clean_all, rows_of
from dataproc.native import Native

_have_sure_characters = Native("dataproc.kernels.length", "have_sure_characters")


def have_characters(texts: pa.LargeStringArray, count: int) -> NDArray[np.bool_]:
    """Whether `clean(text)` has so many characters."""
    rows = rows_of(texts)
    found = np.empty(len(rows.offsets) - 1, np.uint8)
    _have_sure_characters(rows.data, rows.offsets, count, _sure_pairs(), found)
    enough = found.view(np.bool_)
    if not enough.all():
        undecided = pa.array(np.flatnonzero(~enough))
        enough[~enough] = character_counts(clean_all(texts.take(undecided))) >= count
    return enough


@cache
def _sure_pairs() -> NDArray[np.uint8]:
    """By a byte and the next: whether they begin a character that cleaning keeps. Whatever shares its first two bytes
    with white space, such as curly quotes, counts as white space.
    """
    sure = np.zeros((256, 256), np.bool_)
    sure[[byte for byte in range(0x80) if chr(byte).isalnum()]] = True
    sure[0xC2:0xF5, 0x80:0xC0] = True
    for character in map(chr, range(0x80, 0x10000)):
        composes = unicodedata.combining(character) or 0x1100 <= ord(character) < 0x1200  # so does Hangul
        if character.isspace() or composes or not unicodedata.is_normalized("NFC", character):
            first, second, *_ = character.encode()
            sure[first, second] = False
    return sure.view(np.uint8).reshape(-1)
