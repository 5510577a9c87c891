"""Which characters belong to a script: Unicode's tables, by code point.

A character belongs to a script if that is its Script; or if it has none of its own (marks, digits, punctuation) and
lies in a block of the script, or its Script_Extensions name the script and not Latin. So the Arabic comma is Arabic,
and the middle dot is not Greek.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
from fontTools.unicodedata import Blocks, ScriptExtensions, Scripts

CODE_POINTS = 0x110000
LATIN, UNKNOWN = "Latn", "Zzzz"
SHARED = ("Zyyy", "Zinh")  # Common, Inherited
CODES = tuple(sorted(Scripts.NAMES))
_TAIL_BITS = 6  # of a code point in each byte of UTF-8 after the first

Flags = npt.NDArray[np.bool_]


def code_of(name: str) -> str:
    """`Arabic`, `arabic` or `Arab` → `Arab` (ISO 15924). Raises ValueError if there is no such script."""
    wanted = name.strip().replace(" ", "_").casefold()
    known: dict[str, str] = {code: Scripts.NAMES[code] for code in CODES if code not in (*SHARED, UNKNOWN)}
    for code, full in known.items():
        if wanted in (code.casefold(), full.casefold()):
            return code
    near = difflib.get_close_matches(name.capitalize(), known.values(), n=1)
    hint = f"did you mean {near[0]}?" if near else "expected one such as Arabic"
    raise ValueError(f"Unicode has no script {name!r}; {hint}")


def names_of(codes: Sequence[str]) -> list[str]:
    """`Arab` → `Arabic`, of each."""
    return [Scripts.NAMES[code] for code in codes]


@cache
def script_table() -> npt.NDArray[np.uint8]:
    """The script of every code point, as an index into CODES."""
    number = {code: i for i, code in enumerate(CODES)}
    lengths = np.diff([*Scripts.RANGES, CODE_POINTS])
    return np.repeat(np.array([number[code] for code in Scripts.VALUES], np.uint8), lengths)


@cache
def members(codes: tuple[str, ...]) -> Flags:
    """For every code point, whether it belongs to one of the scripts."""
    found: Flags = np.zeros(CODE_POINTS, np.bool_)
    for first, end, used_in in _ranges(ScriptExtensions):
        found[first:end] = bool(used_in) and LATIN not in used_in and not used_in.isdisjoint(codes)
    own_blocks = tuple(name.replace("_", " ") + " " for name in names_of(codes))
    for first, end, block in _ranges(Blocks):
        if f"{block} ".startswith(own_blocks):
            found[first:end] = True
    found &= np.isin(script_table(), [CODES.index(code) for code in SHARED])
    own: Flags = found | np.isin(script_table(), [CODES.index(code) for code in codes])
    return own


def _ranges(table: Any) -> Iterator[tuple[int, int, Any]]:
    """(first, end, value) of each range of code points in one of fontTools' tables."""
    return zip(table.RANGES, [*table.RANGES[1:], CODE_POINTS], table.VALUES, strict=True)


@cache
def assigned() -> Flags:
    """For every code point, whether Unicode has given it a script: not private, not a surrogate, not unassigned."""
    real: Flags = script_table() != CODES.index(UNKNOWN)
    return real


@cache
def pattern(codes: tuple[str, ...]) -> re.Pattern[str]:
    """Finds a character of the scripts."""
    edges = np.flatnonzero(np.diff(members(codes).astype(np.int8), prepend=0, append=0)).tolist()
    ranges = [f"\\U{first:08x}-\\U{end - 1:08x}" for first, end in zip(edges[::2], edges[1::2], strict=True)]
    return re.compile(f"[{''.join(ranges)}]")


def opens(head: bytes, codes: tuple[str, ...]) -> bool:
    """Whether every character whose UTF-8 begins with these bytes, and goes on, belongs to the scripts.

    Code points that Unicode has not assigned do not count.
    """
    lead = head[0]
    length = 2 if 0xC2 <= lead < 0xE0 else 3 if 0xE0 <= lead < 0xF0 else 4 if 0xF0 <= lead < 0xF5 else 0
    if not 0 < len(head) < length:
        return False
    point = lead & (0xFF >> (length + 1))
    for byte in head[1:]:
        point = point << _TAIL_BITS | byte & 0x3F
    left = _TAIL_BITS * (length - len(head))
    first, end = point << left, min((point + 1) << left, CODE_POINTS)
    shortest = {2: 0x80, 3: 0x800, 4: 0x10000}[length]
    real = assigned()[max(first, shortest) : end]
    return bool(real.any() and members(codes)[max(first, shortest) : end][real].all())


def letters_by_script(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Characters of the texts by script, in order of CODES."""
    points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.uint32)
    return np.bincount(script_table()[points], minlength=len(CODES)).astype(np.int64)
