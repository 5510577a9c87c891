"""What words, blocks, headers and skeletons are drawn from: the first base texts, held in memory.

It also makes base texts where the raw text is used up: of spans from random places, so long that two of them have
hardly a word 5-gram in common.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from random import Random

from dataproc.synth.chance import below, chance

POOL_CHARS = 64_000_000
SITES, SITE_WORDS = 40, 4000
SPAN_CHARS = 150
PARAGRAPH_SPANS = 4


@dataclass(frozen=True)
class Site:
    """What the pages of one site begin and end with."""

    header: list[str]
    footer: list[str]


@dataclass(frozen=True)
class Pool:
    """Texts with at least one word each."""

    texts: tuple[str, ...]
    chars: int

    def span(self, rng: Random, chars: int) -> str:
        """About so many characters from a random place, at least one word; shorter if the text ends."""
        while True:
            text = self.texts[below(rng, len(self.texts))]
            start = text.find(" ", below(rng, max(1, len(text) - chars))) + 1
            end = text.find(" ", start + chars, start + 2 * chars)
            span = text[start : end if end >= 0 else start + chars].strip()
            if span:
                return span

    def words(self, rng: Random, count: int) -> list[str]:
        """So many words, from as many spans as it takes."""
        found: list[str] = []
        while len(found) < count:
            found += self.span(rng, 8 * (count - len(found)) + 16).split()
        return found[:count]

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        rngs = (chance("site", number) for number in range(SITES))
        return tuple(Site(self.words(rng, SITE_WORDS), self.words(rng, SITE_WORDS)) for rng in rngs)

    def text(self, rng: Random, chars: int) -> str:
        """A base text made of spans."""
        paragraphs: list[str] = []
        size = 0
        while size < chars:
            paragraphs.append(" ".join(self.span(rng, SPAN_CHARS) for _ in range(PARAGRAPH_SPANS)))
            size += len(paragraphs[-1]) + 2
        return "\n\n".join(paragraphs)


def fill(texts: Iterator[str], *, chars: int = POOL_CHARS) -> Pool:
    """The first texts, until they have so many characters. They are to be used as base texts too."""
    taken: list[str] = []
    size = 0
    for text in texts:
        taken.append(text)
        size += len(text)
        if size >= chars:
            break
    return Pool(tuple(taken), size)
