"""The kinds of copies: a text → one that is near it, in a known way.

White space is kept where words are, so a copy looks like its base. n is the number of words; the Jaccard is that of
word 5-grams of the cleaned texts, for texts of many words that hardly repeat:

    exact, surface             1
    edits p                    q / (2 - q), q = (1 - p)^5
    blocks p, boilerplate p    (1 - p) / (1 + p)
    truncated p                p
    appended p                 1 / (1 + p)
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Mapping
from random import Random

from dataproc.synth.chance import below, chosen
from dataproc.synth.pool import Pool

SUBSTITUTED, DELETED = 0.70, 0.15  # the rest of the edits inserts a word
CASED, PUNCTUATED, SPACED = 0.10, 0.10, 0.10  # of the words, by surface changes

_SPACE = re.compile(r"(\s+)")


def copy_of(text: str, kind: str, param: float, rng: Random, pool: Pool) -> str:
    """A copy of a text with at least one word."""
    words, gaps = split(text)
    return join(*_KINDS[kind](words, gaps, param, rng, pool))


def split(text: str) -> tuple[list[str], list[str]]:
    """Words, and the white space before each and after the last (one more)."""
    parts = _SPACE.split(text)
    words, gaps = parts[0::2], ["", *parts[1::2], ""]
    if words[0] == "":
        words, gaps = words[1:], gaps[1:]
    if words and words[-1] == "":
        words, gaps = words[:-1], gaps[:-1]
    return words, gaps


def join(words: list[str], gaps: list[str]) -> str:
    return "".join(gap + word for gap, word in zip(gaps, words, strict=False)) + gaps[-1]


Parts = tuple[list[str], list[str]]


def _exact(words: list[str], gaps: list[str], param: float, rng: Random, pool: Pool) -> Parts:
    return words, gaps


def _surface(words: list[str], gaps: list[str], param: float, rng: Random, pool: Pool) -> Parts:
    """Case, punctuation and white space; the first word always changes."""
    changed = [_cased(word) if rng.random() < CASED or i == 0 else word for i, word in enumerate(words)]
    changed = [_punctuated(word) if rng.random() < PUNCTUATED or i == 0 else word for i, word in enumerate(changed)]
    inner = [gap + " \n"[below(rng, 2)] if rng.random() < SPACED else gap for gap in gaps[1:-1]]
    return changed, [gaps[0], *inner, gaps[-1]]


def _cased(word: str) -> str:
    """Other case, in ASCII only: elsewhere lower(upper(x)) may differ from lower(x)."""
    return word if not word.isascii() else word.lower() if word.isupper() else word.upper()


def _punctuated(word: str) -> str:
    bare = word.rstrip(string.punctuation)
    return bare if bare and bare != word else word + ","


def _edits(words: list[str], gaps: list[str], param: float, rng: Random, pool: Pool) -> Parts:
    """Words are substituted, deleted, or get a word before them."""
    new_words, new_gaps = list(words), list(gaps)
    for position in reversed(chosen(rng, len(words), _count(param, words))):
        action = rng.random()
        if action < SUBSTITUTED:
            new_words[position] = _other(words[position], rng, pool)
        elif action < SUBSTITUTED + DELETED and len(new_words) > 1:
            del new_words[position], new_gaps[position]
        else:
            new_words.insert(position, _other(words[position], rng, pool))
            new_gaps.insert(position + 1, " ")
    return new_words, new_gaps


def _other(word: str, rng: Random, pool: Pool) -> str:
    """A word of the pool that is another one also without case and punctuation."""
    other = pool.words(rng, 1)[0]
    return other if _bare(other) not in ("", _bare(word)) else "re" + word + "s"


def _bare(word: str) -> str:
    return word.lower().strip(string.punctuation)


def _blocks(words: list[str], gaps: list[str], param: float, rng: Random, pool: Pool) -> Parts:
    size = _count(param, words)
    start = below(rng, len(words) - size + 1)
    return [*words[:start], *pool.words(rng, size), *words[start + size :]], gaps


def _boilerplate(words: list[str], gaps: list[str], param: float, rng: Random, pool: Pool) -> Parts:
    """The first and the last words give way to the header and the footer of a site; copies share sites."""
    size = _count(param, words)
    site = pool.sites[below(rng, len(pool.sites))]
    header, footer = site.header[: (size + 1) // 2], site.footer[: size // 2]
    return [*header, *words[len(header) : len(words) - len(footer)], *footer], gaps


def _truncated(words: list[str], gaps: list[str], param: float, rng: Random, pool: Pool) -> Parts:
    left = _count(param, words)
    return words[:left], [*gaps[:left], ""]


def _appended(words: list[str], gaps: list[str], param: float, rng: Random, pool: Pool) -> Parts:
    more = pool.words(rng, _count(param, words))
    return words + more, [*gaps[:-1], "\n\n", *[" "] * (len(more) - 1), ""]


def _count(share: float, words: list[str]) -> int:
    return max(1, round(share * len(words)))


_KINDS: Mapping[str, Callable[[list[str], list[str], float, Random, Pool], Parts]] = {
    "exact": _exact,
    "surface": _surface,
    "edits": _edits,
    "blocks": _blocks,
    "boilerplate": _boilerplate,
    "truncated": _truncated,
    "appended": _appended,
}
