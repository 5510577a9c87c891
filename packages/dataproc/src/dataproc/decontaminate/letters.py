"""What each character is to a word, as a table for the kernels.

A word is what white space separates, without its punctuation and symbols, in the form that case, accents and ways to
write a character do not change: NFKD, without the marks that have a combining class (accents, Arabic vowel signs,
Hebrew points), case-folded, the decimal digits of all scripts as 0 to 9, and without the Arabic tatweel. So NFC and
NFD, hamza on an alef or none, full width or half are the same, character by character and whatever stands beside it.

Where a script puts no spaces between words (Han, kana, Thai, …), each of its letters is a word by itself, and counts
as half a one: see WORD. 13 Han characters in a row are in many a name of an institution or a law; 26 are about as long
as 13 words are.

    entries[code point]     kind << 24 | SEVERAL | code point that is written, or where in `spelled` it is
    spelled                 how many code points, then these
    plain[byte]             of ASCII: what is written of a letter or a digit, 0 for what is ignored; else OTHER
"""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dataproc.native import kept_on_disk

U32 = NDArray[np.uint32]

IGNORED, SPACE, LETTER, ALONE, MARK = range(5)
"""Kinds. ALONE: a letter that is a word by itself. MARK: goes on with the word before it, as Indic vowel signs do."""
KIND_SHIFT, SEVERAL, CODE = 24, 1 << 21, (1 << 21) - 1
OTHER = 0x80
CODE_POINTS = 0x110000
WORD = 2
"""The weight of a word; that of an ALONE one is 1."""

UNSPACED = (
    *(("Bopomofo", 0x3105, 0x312F), ("kana", 0x3041, 0x30FF), ("kana", 0x31F0, 0x31FF), ("kana", 0xFF66, 0xFF9F)),
    *(("Han", 0x3400, 0x4DBF), ("Han", 0x4E00, 0x9FFF), ("Han", 0xF900, 0xFAFF), ("Han", 0x20000, 0x3FFFF)),
    *(("Han", 0x3005, 0x3007), ("kana", 0x1AFF0, 0x1B16F), ("Yi", 0xA000, 0xA48C), ("Tibetan", 0x0F40, 0x0FBC)),
    *(("Thai", 0x0E01, 0x0E4E), ("Lao", 0x0E81, 0x0ECE), ("Lao", 0x0EDC, 0x0EDF), ("Khmer", 0x1780, 0x17D3)),
    *(("Myanmar", 0x1000, 0x103F), ("Myanmar", 0x1050, 0x108F), ("Myanmar", 0xA9E0, 0xA9EF)),
    *(("Myanmar", 0xAA60, 0xAA7F), ("Tai Le", 0x1950, 0x1974), ("New Tai Lue", 0x1980, 0x19C9)),
    *(("Tai Tham", 0x1A20, 0x1A7F), ("Tai Viet", 0xAA80, 0xAADF), ("Balinese", 0x1B00, 0x1B4B)),
    ("Javanese", 0xA980, 0xA9C0),
)
"""Scripts that are written without spaces between words, by their blocks."""

_TATWEEL = "\u0640"
_FILLERS = (
    *(range(0xFE00, 0xFE10), range(0xE0100, 0xE01F0), range(0x180B, 0x1810), range(0x17B4, 0x17B6)),
    *(range(0x034F, 0x0350), range(0x115F, 0x1161), range(0x3164, 0x3165), range(0xFFA0, 0xFFA1)),
)
"""Variation selectors and fillers: letters and marks by category that write nothing."""


class Letters(NamedTuple):
    entries: U32
    spelled: U32
    plain: NDArray[np.uint8]


@cache
def letters() -> Letters:
    """The table. It takes 0.7 s to make, or is read from disk; it depends on Python's version of Unicode alone."""
    made_with = (unicodedata.unidata_version, Path(__file__).read_text(encoding="utf-8"))
    whole = kept_on_disk("letters", made_with, lambda: b"".join(array.tobytes() for array in _made()))
    rest, last = 4 * CODE_POINTS, len(whole) - 256
    entries, spelled = np.frombuffer(whole[:rest], np.uint32), np.frombuffer(whole[rest:last], np.uint32)
    return Letters(entries.copy(), spelled.copy(), np.frombuffer(whole[last:], np.uint8).copy())


def _made() -> Letters:
    entries = np.zeros(CODE_POINTS, np.uint32)
    spelled: list[int] = []
    alone = np.zeros(CODE_POINTS, np.bool_)
    for _, first, last in UNSPACED:
        alone[first : last + 1] = True
    fillers = {code for codes in _FILLERS for code in codes}
    for code in range(CODE_POINTS):
        character = chr(code)
        category = unicodedata.category(character)
        if category[0] in "LNM" and category != "Me" and code not in fillers:
            form = normal(character)
            if form:
                kind = MARK if category[0] == "M" else ALONE if alone[code] and category[0] == "L" else LETTER
                entries[code] = kind << KIND_SHIFT | _written(form, spelled)
        elif category[0] == "Z" or category == "Cc":
            entries[code] = SPACE << KIND_SHIFT
    plain = np.full(256, OTHER, np.uint8)
    ascii_ = entries[:OTHER]
    plain[:OTHER] = np.where(ascii_ >> KIND_SHIFT == SPACE, OTHER, ascii_ & CODE)
    return Letters(entries, np.array(spelled, np.uint32), plain)


def normal(character: str) -> str:
    """What is written of a letter, a number or a mark; empty if nothing is."""
    if character == _TATWEEL:
        return ""
    digit = unicodedata.decimal(character, None)
    if digit is not None:
        return str(digit)
    folded = _plain(_plain(character).casefold())
    return "".join(c for c in folded if unicodedata.category(c)[0] in "LNM" and c != _TATWEEL)


def _plain(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _written(form: str, spelled: list[int]) -> int:
    if len(form) == 1:
        return ord(form)
    place = len(spelled)
    spelled += [len(form), *map(ord, form)]
    return SEVERAL | place
