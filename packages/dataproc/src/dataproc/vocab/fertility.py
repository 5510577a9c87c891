"""How many tokens tokenizers make of text, source by source: tokens per word and bytes per token.

A word is what stands between white space, as Unicode has it (str.split). In scripts that put no space between words
(Han, Thai) tokens per word says little; bytes per token holds for all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from tokenizers import Tokenizer

from dataproc import progress
from dataproc.vocab.files import load, place_of, size_of
from manifest.added import ADDED, Added
from manifest.errors import InputError
from manifest.fields import parse_count
from manifest.record import Model

BATCH = 256
STEPS = 5  # halvings of the number of new tokens, in the default curve


class Text(Model):
    """What was measured on. bytes: of UTF-8."""

    documents: int
    words: int
    characters: int
    bytes: int


class Rate(Model):
    """A tokenizer on a source. tokens: without end-of-text."""

    tokens: int
    tokens_per_word: float
    bytes_per_token: float


class Point(Model):
    """A tokenizer, or the beginning of an extended one. new: its new tokens; None if it was not extended."""

    tokenizer: str
    vocab_size: int
    new: int | None = None
    sources: dict[str, Rate]


class Fertility(Model):
    """word: how words were told apart. curve: whether beginnings of extended tokenizers were measured."""

    word: str = "between white space"
    curve: bool
    text: dict[str, Text]
    points: tuple[Point, ...] = Field(min_length=1)

    @property
    def names(self) -> list[str]:
        """The tokenizers."""
        return list(dict.fromkeys(point.tokenizer for point in self.points))

    def of(self, tokenizer: str) -> list[Point]:
        """The points of a tokenizer."""
        return [point for point in self.points if point.tokenizer == tokenizer]


@dataclass(frozen=True)
class Subject:
    """A tokenizer that is measured, by its name."""

    name: str
    tokenizer: Tokenizer
    added: Added | None


def subjects(given: Sequence[str]) -> list[Subject]:
    """Tokenizers by directory, file, artifact or mixture. Raises InputError if one cannot be read."""
    found: dict[str, Subject] = {}
    for uri in given:
        place = place_of(uri)
        directory = place if place.is_dir() else place.parent
        name = directory.name if directory.name not in found else str(place)
        file = directory / ADDED
        added = Added.model_validate_json(file.read_bytes()) if file.is_file() else None
        found[name] = Subject(name, load(place), added)
    return list(found.values())


def parse_curve(spec: str | None) -> tuple[int, ...] | None:
    """`0,1k,2k` → counts, ascending; nothing → () for the default. Raises InputError."""
    if not spec:
        return () if spec == "" else None
    try:
        counts = {int(str(parse_count(part.strip()))) for part in spec.split(",")}
    except ValueError as error:
        raise InputError(f"--curve {spec}: {error}; expected counts such as 0,1k,2k") from error
    return tuple(sorted(counts))


def measure(given: Sequence[Subject], texts: Mapping[str, Sequence[str]], curve: tuple[int, ...] | None) -> Fertility:
    """texts: by source. curve: numbers of new tokens, () for the default ones, None for whole tokenizers only.

    Raises InputError if there is no text, or a curve is asked for where no vocabulary has grown.
    """
    empty = [source for source, found in texts.items() if not any(text.split() for text in found)]
    if empty or not texts:
        raise InputError(
            f"there is no word to measure on in {', '.join(empty) or 'what was given'}; name other documents"
        )
    wanted = [point for subject in given for point in _points(subject, curve)]
    if curve is not None and not any(new for _, new in wanted if new is not None):
        raise InputError(f"--curve: none of {', '.join(s.name for s in given)} is an extended tokenizer; leave it out")
    sizes = {source: _size(found) for source, found in texts.items()}
    points = []
    for subject, new in progress.track(wanted, label="fertility", total=len(wanted), unit="tokenizers"):
        tokenizer = subject.tokenizer if new is None or subject.added is None else beginning(subject, new)
        tokenizer.encode_special_tokens = True  # as a build encodes
        rates = {source: _rate(tokenizer, texts[source], sizes[source]) for source in texts}
        whole = len(subject.added.tokens) if subject.added and not subject.added.replaced and new is None else new
        points.append(Point(tokenizer=subject.name, vocab_size=size_of(tokenizer), new=whole, sources=rates))
    return Fertility(curve=curve is not None, text=sizes, points=tuple(points))


def beginning(subject: Subject, new: int) -> Tokenizer:
    """An extended tokenizer with the first `new` of its new tokens alone."""
    assert subject.added is not None
    content: dict[str, Any] = json.loads(subject.tokenizer.to_str())
    dropped = {token.token for token in subject.added.tokens[new:]}
    model = content["model"]
    model["vocab"] = {token: number for token, number in model["vocab"].items() if token not in dropped}
    model["merges"] = [merge for merge in model["merges"] if "".join(merge) not in dropped]
    return Tokenizer.from_str(json.dumps(content))


def _points(subject: Subject, curve: tuple[int, ...] | None) -> Iterator[tuple[Subject, int | None]]:
    """(subject, new tokens; None for all of it)"""
    if curve is None or subject.added is None or subject.added.replaced:
        yield subject, None
        return
    most = len(subject.added.tokens)
    for count in curve or sorted({0, *(most >> step for step in range(STEPS + 1))}):
        if count > most:
            raise InputError(f"--curve {count}: {subject.name} has {most:,} new tokens; ask for at most so many")
        yield subject, count


def _size(texts: Sequence[str]) -> Text:
    return Text(
        documents=len(texts),
        words=sum(len(text.split()) for text in texts),
        characters=sum(map(len, texts)),
        bytes=sum(len(text.encode()) for text in texts),
    )


def _rate(tokenizer: Tokenizer, texts: Sequence[str], size: Text) -> Rate:
    tokens = 0
    for first in range(0, len(texts), BATCH):
        batch = list(texts[first : first + BATCH])
        tokens += sum(len(encoding) for encoding in tokenizer.encode_batch_fast(batch, add_special_tokens=False))
    return Rate(
        tokens=tokens,
        tokens_per_word=round(tokens / size.words, 4),
        bytes_per_token=round(size.bytes / max(tokens, 1), 4),
    )
