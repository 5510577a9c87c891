"""Documents → the words in which new tokens are learned, as a base encodes them, with their counts.

Words are runs of tokens that may be parts of new ones (joining.py), so most of what is in other scripts is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dataproc.stage import Draft
from dataproc.vocab.base import Base, read_base
from dataproc.vocab.joining import Joining
from dataproc.vocab.merges import MISSING, Words
from dataproc.vocab.sample import sampled
from dataproc.vocab.scripts import letters_by_script, members, pattern
from dataproc.workers import Done, Workers
from manifest.record import Model

PIECES = 500_000  # different ones in memory at a time
ROWS = pa.schema([("word", pa.large_binary()), ("count", pa.int64())])

Numbered = tuple[int, Path]


class Letters(Model):
    """Characters by script, in order of scripts.CODES."""

    counts: tuple[int, ...]


class Usage(Model):
    """How often each token is used: ids ascending, and their counts."""

    ids: tuple[int, ...]
    counts: tuple[int, ...]


def count_letters(shards: Sequence[Path], limit: int, *, workers: Workers, draft: Draft) -> list[int]:
    """Characters by script of the sample."""
    task = partial(_letters, limit=limit)
    found = workers.map(task, list(shards), result=Letters, notes=draft.notes / "letters", label="scripts")
    return [sum(column) for column in zip(*(letters.counts for letters in found), strict=True)]


def count_usage(shards: Sequence[Path], base: Path, limit: int, *, workers: Workers, draft: Draft) -> Counter[int]:
    """How often the sample uses each token of the base."""
    task = partial(_usage, base=base, limit=limit)
    found = workers.map(task, list(shards), result=Usage, notes=draft.notes / "usage", label="token usage")
    total: Counter[int] = Counter()
    for usage in found:
        total.update(dict(zip(usage.ids, usage.counts, strict=True)))
    return total


def count_words(
    shards: Sequence[Path], base: Path, joining: Joining, limit: int, *, workers: Workers, draft: Draft
) -> Words | None:
    """The words of the sample, in order of their symbols' bytes; None if there is none."""
    task = partial(_words, base=base, joining=joining, limit=limit, out=draft.scratch)
    workers.map(task, list(enumerate(shards)), result=Done, notes=draft.notes / "words", label="words")
    files = [file for number in range(len(shards)) if (file := _file(draft.scratch, number)).is_file()]
    if not files:
        return None
    table = pl.concat([pl.scan_parquet(file) for file in files]).group_by("word").agg(pl.col("count").sum())
    found = table.sort("word").collect()
    words = found["word"].to_list()
    lengths = np.array([len(word) // 4 for word in words], np.int64)
    return Words(np.frombuffer(b"".join(words), "<i4"), lengths, found["count"].to_numpy())


def texts_of(shard: Path, limit: int) -> Iterator[list[str]]:
    """The texts of a shard that are in the sample, in batches."""
    return (batch["text"].to_pylist() for batch in sampled(shard, limit))


def _letters(shard: Path, *, limit: int) -> Letters:
    total = letters_by_script([])
    for texts in texts_of(shard, limit):
        total += letters_by_script(texts)
    return Letters(counts=tuple(total.tolist()))


def _usage(shard: Path, *, base: Path, limit: int) -> Usage:
    made = _base(base)
    total = np.zeros(made.size, np.int64)
    for texts in texts_of(shard, limit):
        for encoding in made.tokenizer.encode_batch_fast(texts, add_special_tokens=False):
            total += np.bincount(encoding.ids, minlength=made.size)
    ids = np.flatnonzero(total)
    return Usage(ids=tuple(ids.tolist()), counts=tuple(total[ids].tolist()))


def _words(numbered: Numbered, *, base: Path, joining: Joining, limit: int, out: Path) -> Done:
    number, shard = numbered
    made = _base(base)
    seen = pattern(joining.scripts)
    cutter = _Cutter(made, joining)
    pieces: Counter[str] = Counter()
    words: Counter[bytes] = Counter()
    for texts in texts_of(shard, limit):
        for text in texts:
            if seen.search(text):
                pieces.update(made.pieces(text))
                if len(pieces) > PIECES:
                    cutter.cut(pieces, words)
                    pieces.clear()
    cutter.cut(pieces, words)
    if words:
        rows = sorted(words.items())
        table = pa.table([[word for word, _ in rows], [count for _, count in rows]], schema=ROWS)
        file = _file(out, number)
        pq.write_table(table, file.with_suffix(".tmp"))
        file.with_suffix(".tmp").replace(file)
    return Done()


def _file(directory: Path, number: int) -> Path:
    return directory / f"words-{number:05d}.parquet"


@lru_cache(maxsize=1)
def _base(path: Path) -> Base:
    return read_base(path, "tokenizer")


class _Cutter:
    """Cuts pieces into words."""

    def __init__(self, base: Base, joining: Joining) -> None:
        self.base = base
        self.seen = pattern(joining.scripts)
        self.own = members(joining.scripts)
        self.usable = {number: data for number, data in base.bytes_of.items() if joining.usable(data)}

    def cut(self, pieces: Counter[str], words: Counter[bytes]) -> None:
        for piece, count in pieces.items():
            if self.seen.search(self.base.text_of(piece)):
                for word in self._words(piece):
                    if len(word) > 1 or word[0] >= MISSING:
                        words[np.array(word, "<i4").tobytes()] += count

    def _words(self, piece: str) -> Iterator[list[int]]:
        """Its runs of symbols that may be parts of new tokens, a space at most at the beginning."""
        word: list[int] = []
        for symbol in self._symbols(piece):
            usable = (symbol >= MISSING and self.own[symbol - MISSING]) or symbol in self.usable
            if word and (not usable or self.usable.get(symbol, b"").startswith(b" ")):
                yield word
                word = []
            if usable:
                word.append(symbol)
        if word:
            yield word

    def _symbols(self, piece: str) -> Iterator[int]:
        """The tokens of a piece, with bytes of fallback put together into their characters."""
        lost = bytearray()
        for number in self.base.segment(piece):
            if number in self.base.fallback:
                lost.append(self.base.fallback[number])
                continue
            yield from _missing(lost)
            lost.clear()
            yield number
        yield from _missing(lost)


def _missing(lost: bytearray) -> Iterator[int]:
    return (MISSING + ord(character) for character in lost.decode())
