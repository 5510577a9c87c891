"""What Unicode says of each character, as tables for the kernels.

    entries[pages[code >> 8] << 8 | code & 0xFF]      code: code point

    bits 0–20     what to add to the code point for its lower case, modulo 2²¹
    SPACE         white space, as str.isspace
    UNSETTLED     the text may change under NFC, or lower-casing depends on more than this character: Python must help
    bits 24–31    canonical combining class: in NFC no mark follows one of a higher class

For most characters the entry is 0. They come from Python's own `unicodedata`, so that the kernels and Python agree.
"""

import re
import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np

from dataproc.native import I64, U16, U32, kept_on_disk

LOWER = 0x1FFFFF
SPACE = 1 << 21
UNSETTLED = 1 << 22
CLASS_SHIFT = 24

_FINAL_SIGMA, _DOTTED_I = 0x3A3, 0x130  # the one that looks at its neighbours, and the one that becomes two
_JAMO = (range(0x1161, 0x1176), range(0x11A8, 0x11C3))  # compose with what is before them, by rule


class Tables(NamedTuple):
    pages: U16
    entries: U32


@cache
def tables() -> Tables:
    """Read from disk, or made in 0.15 s."""
    whole = kept_on_disk("characters", (unicodedata.unidata_version,), _made)
    pages = np.frombuffer(whole, "<u2", 0x1100)
    return Tables(pages, np.frombuffer(whole, "<u4", offset=pages.nbytes))


def _made() -> bytes:
    """Both tables, end to end."""
    rows = _entries().reshape(-1, 256)
    numbers: dict[bytes, int] = {}
    pages = [numbers.setdefault(row.tobytes(), len(numbers)) for row in rows]
    return np.array(pages, "<u2").tobytes() + b"".join(numbers)


def _entries() -> U32:
    """One for each code point."""
    codes = np.concatenate([np.arange(0xD800), np.arange(0xE000, 0x110000)]).astype("<u4")  # all but surrogates
    text = codes.tobytes().decode("utf-32-le")
    entries = np.full(0x110000, UNSETTLED, "<u4")  # surrogates stay so: they are no UTF-8
    lower = text.replace(chr(_DOTTED_I), "i").replace(chr(_FINAL_SIGMA), "σ").lower()
    lower_codes = np.frombuffer(lower.encode("utf-32-le"), "<u4")
    entries[codes] = (lower_codes - codes) & LOWER
    entries[codes] |= np.frombuffer(bytes(map(unicodedata.combining, text)), np.uint8).astype("<u4") << CLASS_SHIFT
    entries[[ord(space) for space in re.findall(r"\s", text)]] |= SPACE
    entries[_unsettled(text)] |= UNSETTLED
    other_size = _utf8_sizes(codes) != _utf8_sizes(lower_codes)  # the kernels write over the character
    entries[codes[other_size]] |= UNSETTLED
    entries[:0x80] = UNSETTLED  # two bytes for what takes one: no UTF-8
    return entries


def _unsettled(text: str) -> list[int]:
    """What NFC may change, alone or together with what is before it, and the two odd lower cases."""
    found = [_FINAL_SIGMA, _DOTTED_I, *_JAMO[0], *_JAMO[1]]
    for character, parts in zip(text, map(unicodedata.decomposition, text), strict=True):
        if parts and not parts.startswith("<"):  # with <…> it is a compatibility one, which NFC leaves alone
            found += [int(part, 16) for part in parts.split()[1:]]
            if unicodedata.normalize("NFC", character) != character:
                found.append(ord(character))
    return found


def _utf8_sizes(codes: U32) -> I64:
    return 1 + np.searchsorted(np.array([0x80, 0x800, 0x10000], "<u4"), codes, side="right")
