"""Documents of one template: the same words but for the fields, which each member fills in anew."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from dataproc.synth.chance import below
from dataproc.synth.pool import Pool
from dataproc.synth.recipe import Template

LINE_WORDS = 12
NUMBERS = 9999


@dataclass(frozen=True)
class Skeleton:
    """The words of a template, and which of them are fields."""

    words: tuple[str, ...]
    fields: tuple[int, ...]

    def member(self, rng: Random, pool: Pool) -> str:
        """The text of a member. A field is a number or a word; two members may agree in one by chance."""
        words = list(self.words)
        for position in self.fields:
            words[position] = str(below(rng, NUMBERS)) if rng.random() < 0.5 else pool.words(rng, 1)[0]
        return "\n".join(" ".join(words[i : i + LINE_WORDS]) for i in range(0, len(words), LINE_WORDS))


def skeleton(template: Template, pool: Pool, rng: Random) -> Skeleton:
    """A skeleton with its fields spread evenly."""
    step = template.words / template.fields
    fields = tuple(int((index + 0.5) * step) for index in range(template.fields))
    return Skeleton(tuple(pool.words(rng, template.words)), fields)
