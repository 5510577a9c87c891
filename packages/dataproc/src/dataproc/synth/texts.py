"""Raw files → base texts: cut at paragraphs, about as long as drawn, taken from many files in turn.

Files lie in order of a hash of their path and are read LANES at a time, one text of each in turn, so that a small
corpus is a fair sample of the raw text and a large one needs no more memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from itertools import islice

from dataproc.raw import RawFile, records
from dataproc.recipe.sources import Source
from dataproc.synth.chance import chance, normal
from dataproc.synth.recipe import Lengths
from manifest.identity import hash64

LANES = 24
PIECE_CHARS = 1500  # a longer paragraph is cut at a line's end, or else at a space

WORDY = 4  # at least every fourth character of min_chars is of a word; rules and empty tables have none

_WORD_CHARACTER = re.compile(r"\w")
_PARAGRAPHS = re.compile(r"\n[ \t\r\f\v]*\n\s*")


def base_texts(files: Iterable[tuple[Source, RawFile]], lengths: Lengths, seed: int) -> Iterator[str]:
    """Texts until the raw files are used up. Raises DataError for a damaged file."""
    ordered = sorted(files, key=lambda item: (hash64(item[1].path), item[1].path))
    waiting = (_lane(source, file, lengths, seed) for source, file in ordered)
    lanes = list(islice(waiting, LANES))
    while lanes:
        still: list[Iterator[str]] = []
        for lane in lanes:
            text = next(lane, None)
            if text is not None:
                yield text
                still.append(lane)
            else:
                still.extend(islice(waiting, 1))
        lanes = still


def length(lengths: Lengths, *key: object) -> int:
    """The number of characters that is drawn for a text."""
    drawn = int(lengths.median_chars * math.exp(lengths.sigma * normal(chance("length", *key))))
    return min(max(drawn, lengths.min_chars), lengths.max_chars)


def _lane(source: Source, file: RawFile, lengths: Lengths, seed: int) -> Iterator[str]:
    """The texts of one file. Records without a text are passed over, as a build sets them aside."""
    number = 0
    for _, record in records(file):
        text = record.get(source.text) if isinstance(record, dict) else None
        if not isinstance(text, str):
            continue
        for part in _cut(text, lengths, (seed, file.path), number):
            number += 1
            if _has_words(part, lengths.min_chars // WORDY):
                yield part


def _has_words(text: str, characters: int) -> bool:
    """Whether a text has so many characters of words: without any, all texts would clean to the same one."""
    return sum(1 for _ in islice(_WORD_CHARACTER.finditer(text), characters)) == characters


def _cut(text: str, lengths: Lengths, key: tuple[object, ...], number: int) -> Iterator[str]:
    """Whole pieces until the length that is drawn is reached; a rest that is too short is dropped."""
    part: list[str] = []
    size, wanted = 0, length(lengths, *key, number)
    for piece in _pieces(text, lengths.max_chars):
        part.append(piece)
        size += len(piece) + 2
        if size >= wanted:
            yield "\n\n".join(part)[: lengths.max_chars]
            number += 1
            part, size, wanted = [], 0, length(lengths, *key, number)
    if size >= lengths.min_chars + 2:
        yield "\n\n".join(part)[: lengths.max_chars]


def _pieces(text: str, limit: int) -> Iterator[str]:
    longest = min(PIECE_CHARS, limit)
    for paragraph in _PARAGRAPHS.split(text):
        start = 0
        while len(paragraph) - start > longest:
            end = paragraph.rfind("\n", start + 1, start + longest)
            end = end if end > 0 else paragraph.rfind(" ", start + 1, start + longest)
            end = end if end > 0 else start + longest
            yield paragraph[start:end]
            start = end
        if paragraph[start:].strip():
            yield paragraph[start:]
