"""What ftfy and NFC can do to text, character by character, as a table of bits for every code point.

Read from ftfy's own tables and patterns, so that another version of it is met as it is. With `fix_text(text, FIX)`, a
segment (mostly a line) stays as it is if none of these holds, since then each of ftfy's steps leaves it alone:

    HARD         it has a character that is replaced or deleted, and what then stands there must be looked at again
    SOFT         it has a character that is replaced by plain ones, wherever it stands: curly quotes, full width, …
    SUSPICIOUS   `ftfy.badness` could call it mojibake: it has an ALONE character, or a TELLING one beside another of
                 MOJIBAKE, or a STRONG one beside any that its pattern names, LETTERs (Greek and Cyrillic) included.
                 Whatever the pattern matches holds one of them; the tests read it for that
    UNORDERED    it may not be in NFC: it has a COMPOSING character, or combining ones in a wrong order
    ENTITY       it has an HTML entity (which is not of one character, so repair.py looks for it)
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np
from ftfy import chardata, fixes
from ftfy.badness import BADNESS_RE, MOJIBAKE_CATEGORIES
from numpy.typing import NDArray

from dataproc.kernels.flags import (
    ALONE,
    COMPOSING,
    HARD,
    LETTER,
    MOJIBAKE,
    ODD,
    ODD_UNTIL_HTML,
    ORDERED,
    SOFT,
    STRONG,
    SYNTAX,
    TELLING,
)
from dataproc.native import U8, U16

CHARACTER_STEPS: tuple[Callable[[str], str], ...] = (
    fixes.fix_c1_controls,
    fixes.fix_latin_ligatures,
    fixes.fix_character_width,
    fixes.uncurl_quotes,
    fixes.fix_line_breaks,
    fixes.fix_surrogates,
    fixes.remove_terminal_escapes,
    fixes.remove_control_chars,
)
"""What ftfy does after it has mended entities and encodings, in its order."""

CODE_POINTS = 0x110000


def _characters(*categories: str) -> str:
    return "".join(MOJIBAKE_CATEGORIES[name] for name in categories)


ALONE_CHARACTERS = "\x80-\x9fŒœÃÂ"
STRONG_CHARACTERS = _characters("bad", "upper_accented") + "€Ђ"
TELLING_CHARACTERS = STRONG_CHARACTERS + "Ù°" + _characters(
    "c1", "box", "start_punctuation", "end_punctuation", "currency", "numeric", "law"
)  # fmt: skip
LETTERS = _characters("lower_common", "upper_common")
NO_LETTERS = "ВГРСΒΓΞΟ"
"""Letters that punctuation, too, can make mojibake of."""
_RANGE = re.compile(r"([^\x00-\x7f])-([^\x00-\x7f])")
_NO_PLANE_AFTER = 0x30000
"""From here on no code point combines or decomposes."""
_VOWELS_AND_FINALS = (range(0x1161, 0x1176), range(0x11A8, 0x11C3))
"""Of Hangul: they join the letter before them, by a rule and not by a table."""


class Characters(NamedTuple):
    """By code point: its `kinds`; its `order`, the canonical combining class or COMPOSING; and its row of `soft`, or 0.

    A row of `soft` holds the length of the replacement, then its UTF-8. `soft_first`, by a byte: whether the UTF-8 of
    SOFT characters begins so. `odd`, by two bytes: ODD where that of characters begins so that can make a segment need
    anything (LETTERs and MOJIBAKE alone cannot), ODD_UNTIL_HTML for `&` and `<`, which mean nothing after a `<`.
    """

    kinds: U16
    order: U8
    soft_row: U16
    soft: U8
    soft_first: NDArray[np.bool_]
    odd: U8


@cache
def characters() -> Characters:
    """The table. It takes 0.1 s to make and 6 MB."""
    kinds, order = np.zeros(CODE_POINTS, np.uint16), np.zeros(CODE_POINTS, np.uint8)
    letters = _codes(LETTERS) - _codes(NO_LETTERS)
    for bit, codes in (
        (ALONE, _codes(ALONE_CHARACTERS)),
        (TELLING, _codes(TELLING_CHARACTERS)),
        (STRONG, _codes(STRONG_CHARACTERS)),
        (LETTER, letters),
        (MOJIBAKE, _codes(BADNESS_RE.pattern) - letters),
    ):
        kinds[list(codes)] |= bit
    order[:_NO_PLANE_AFTER] = [unicodedata.combining(chr(code)) for code in range(_NO_PLANE_AFTER)]
    order[list(_composing())] = COMPOSING
    kinds[order > 0] |= ORDERED
    changed = {code: text for code in _candidates() if (text := _alone(chr(code))) != chr(code)}
    plain = {code: text for code, text in changed.items() if _is_plain(text, kinds)}
    soft = {code: text for code, text in plain.items() if not changed.keys() & map(ord, text)}
    kinds[list(changed.keys() - soft.keys())] |= HARD
    kinds[list(soft)] |= SOFT
    kinds[list(b"\n&<")] |= SYNTAX
    return Characters(kinds, order, *_replacements(soft), _odd(kinds))


def _codes(pattern: str) -> set[int]:
    """The characters beyond ASCII that a pattern names, those in its ranges included."""
    ranges = (range(ord(first), ord(last) + 1) for first, last in _RANGE.findall(pattern))
    return {ord(c) for c in pattern if not c.isascii()}.union(*ranges)


def _composing() -> Iterator[int]:
    """What NFC may change, or join to the character before it: NFC_Quick_Check is No or Maybe (UAX #15)."""
    for code in range(_NO_PLANE_AFTER):
        character = chr(code)
        if not unicodedata.is_normalized("NFC", character):
            yield code
        first, *others = unicodedata.decomposition(character).split() or [""]
        if not first.startswith("<"):
            yield from (int(other, 16) for other in others)
    for codes in _VOWELS_AND_FINALS:
        yield from codes


def _candidates() -> set[int]:
    """The characters that one of ftfy's steps can replace or delete, each by itself."""
    quotes = _codes(chardata.SINGLE_QUOTE_RE.pattern) | _codes(chardata.DOUBLE_QUOTE_RE.pattern)
    breaks = {ord(c) for c in "\r\u2028\u2029"}
    tables: set[int] = chardata.LIGATURES.keys() | chardata.WIDTH_MAP.keys() | chardata.CONTROL_CHARS.keys()
    return quotes | breaks | tables | _codes(chardata.C1_CONTROL_RE.pattern) | set(range(0xD800, 0xE000))


def _alone(character: str) -> str:
    """A character after ftfy's steps in their order, each taken once."""
    for step in CHARACTER_STEPS:
        character = step(character)
    return unicodedata.normalize("NFC", character)


def _is_plain(text: str, kinds: U16) -> bool:
    """Whether it can take a character's place without any further step: nothing would touch it or what is beside it.

    An ampersand could begin an entity.
    """
    return text != "" and "&" not in text and not kinds[[ord(c) for c in text]].any()


def _replacements(soft: dict[int, str]) -> tuple[U16, U8, NDArray[np.bool_]]:
    rows = np.zeros(CODE_POINTS, np.uint16)
    first = np.zeros(256, np.bool_)
    table = np.zeros((len(soft) + 1, 5), np.uint8)
    for row, (code, text) in enumerate(sorted(soft.items()), 1):
        data = text.encode()
        assert len(data) <= min(4, len(chr(code).encode())), "a replacement is no longer than what it replaces"
        rows[code] = row
        first[chr(code).encode()[0]] = True
        table[row, 0], table[row, 1 : 1 + len(data)] = len(data), list(data)
    return rows, table, first


def _odd(kinds: U16) -> U8:
    odd = np.zeros((256, 256), np.uint8)
    for code in np.flatnonzero(kinds & ~np.uint16(MOJIBAKE | LETTER | SYNTAX)).tolist():
        first, *others = chr(code).encode("utf-8", "surrogatepass")
        odd[first, others[0] if others else slice(None)] = ODD
    odd[list(b"&<")] = ODD_UNTIL_HTML
    return odd
