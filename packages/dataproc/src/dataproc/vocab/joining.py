"""Which two tokens may become a new one: the text without the new script must keep its tokens.

A new token is characters of the script, with at most one space before them. What leads there may be the beginning of
one character, if all characters that begin so belong to the script. A merge at the edge of two characters makes whole
characters only; one within a character may leave a part at its outer ends where the base has such a token.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from dataproc.vocab.scripts import members, opens


@dataclass(frozen=True)
class Parts:
    """Bytes as UTF-8: what ends a character, whole characters, what begins one."""

    tail: bytes
    text: str
    head: bytes

    @property
    def bare(self) -> str:
        """The characters without the space before them."""
        return self.text.removeprefix(" ")


@lru_cache(maxsize=1 << 16)
def parts_of(data: bytes) -> Parts | None:
    """None if the bytes are not from UTF-8."""
    start = next((i for i, byte in enumerate(data) if not _continues(byte)), len(data))
    end = len(data)
    for back in range(1, min(3, end - start) + 1):
        if not _continues(data[-back]):
            end -= back if _length(data[-back]) > back else 0
            break
    try:
        return Parts(data[:start], data[start:end].decode(), data[end:]) if start <= 3 else None
    except UnicodeDecodeError:
        return None


@dataclass(frozen=True)
class Joining:
    """The rule for some scripts. by_kind: letters, digits and other characters do not share a token, as where words
    are cut by their kinds before BPE sees them.
    """

    scripts: tuple[str, ...]
    by_kind: bool

    def usable(self, data: bytes) -> bool:
        """Whether a token may be a part of a new one."""
        parts = parts_of(data)
        return parts is not None and self._own(parts.bare)

    def allows(self, left: bytes, right: bytes) -> bool:
        """Whether two tokens may become one."""
        parts = parts_of(left + right)
        if parts is None or not self._own(parts.bare):
            return False
        if not _continues(right[0]):
            whole = not parts.tail and not parts.head and bool(parts.bare)
            return whole and not (self.by_kind and _mixed(parts.bare))
        return bool(parts.bare) or (not parts.tail and bool(parts.head) and opens(parts.head, self.scripts))

    def _own(self, text: str) -> bool:
        own = members(self.scripts)
        return all(own[ord(character)] for character in text)


def _continues(byte: int) -> bool:
    return 0x80 <= byte < 0xC0


def _length(lead: int) -> int:
    """How many bytes a character has that begins so."""
    return 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4


def _mixed(text: str) -> bool:
    kinds = {unicodedata.category(character)[0].replace("M", "L") for character in text}
    return len({kind if kind in "LN" else "other" for kind in kinds}) > 1
