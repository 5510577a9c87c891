"""Items → their words, and the index of their grams: files that every task maps.

    n-grams    of an item with at least `ngram` words: the run of so many from each word on
    whole      an item with fewer, but at least LEAST: all of it is one gram. GPT-3's contamination study used an N of 8
               to 13 by data set (Brown et al. 2020, appendix C, as lm-evaluation-harness, docs/decontamination.md,
               has it), and fewer words than its least are often in texts that know nothing of the item
    skipped    an item with fewer still, for it would be found everywhere; it is counted

Words of items that stand in more than SHARED of them (what a set asks in all of its items) are attributed to the first
so many, so that a document costs no more than that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.decontaminate import kernels
from dataproc.decontaminate.kernels import HEAD, NGRAM, Index
from dataproc.decontaminate.letters import U32, WORD, Letters, letters
from dataproc.dedup.cleaning import offsets_of, rows_of
from dataproc.dedup.group import save
from dataproc.native import I64, U64

LEAST = 8
SHARED = 64
_TOKEN_COLUMNS = 4
_NGRAMS, _WHOLE, _SKIPPED = "n-grams", "whole", "skipped"
MATCHED = (_NGRAMS, _WHOLE, _SKIPPED)
"""How an item is looked for."""


@dataclass(frozen=True)
class Words:
    """The words of texts, end to end: by word (start, end, place in `spelled`, weight), and the bounds of each text."""

    spelled: U32
    tokens: I64
    hashes: U64
    bounds: I64

    @property
    def weights(self) -> I64:
        """Of each text."""
        sums = offsets_of(self.tokens[:, 3])
        return np.asarray(sums[self.bounds[1:]] - sums[self.bounds[:-1]])


def words_of(texts: pa.Array) -> Words:
    """The words of texts."""
    rows = rows_of(texts)
    size = len(rows.data)
    # At most so many: a word takes a byte, and U+FDFA, of three, is eighteen letters. What is not used is not there.
    spelled, hashes = np.empty(7 * size + 1, np.uint32), np.empty(size, np.uint64)
    tokens, bounds = np.empty((size, _TOKEN_COLUMNS), np.int64), np.zeros(len(texts) + 1, np.int64)
    used = kernels.spell(*rows, letters(), spelled, tokens, hashes, bounds)
    count = bounds[-1]
    return Words(spelled[:used].copy(), tokens[:count].copy(), hashes[:count].copy(), bounds)


def needs(ngram: int) -> I64:
    """The weights of the shortest item that is looked for, and of an n-gram."""
    return np.array([WORD * min(LEAST, ngram), WORD * ngram], np.int64)


def matched(words: Words, ngram: int) -> NDArray[np.int64]:
    """How each item is looked for: its place in MATCHED."""
    least, whole = needs(ngram)
    weights = words.weights
    return np.where(weights >= whole, 0, np.where(weights >= least, 1, 2))


def make_index(words: Words, ngram: int) -> Index:
    """The index of the items' grams."""
    least = needs(ngram)
    power = kernels.powers(int(least[NGRAM]) + 1)
    grams, both = np.empty((len(words.tokens), 4), np.int64), np.empty((len(words.tokens), 2), np.uint64)
    made = kernels.grams(words.tokens, words.hashes, words.bounds, least, power, grams, both)
    order = np.argsort(both[:made, NGRAM], kind="stable")
    hashes, (item, first, last, kind) = both[order, NGRAM], np.ascontiguousarray(grams[order].T)
    ends = np.append(words.tokens[1:, 2], len(words.spelled))
    low, high = words.tokens[first, 2], ends[last - 1]
    starts = kernels.group_starts(words.spelled, hashes, low, high, kind)
    group = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, made)))
    kept = _first_of_each(group, item)
    slots, sieve = _tables(hashes[starts], np.ascontiguousarray(both[order, HEAD]))
    return Index(
        words=words.spelled,
        hashes=hashes[starts],
        low=low[starts],
        high=high[starts],
        postings=np.searchsorted(group[kept], np.arange(len(starts) + 1)),
        item=item[kept],
        start=words.tokens[first[kept], 0],
        end=words.tokens[last[kept] - 1, 1],
        slots=slots,
        sieve=sieve,
        items=np.array([len(words.bounds) - 1], np.int64),
    )


def _first_of_each(group: I64, item: I64) -> I64:
    """The postings that stay: the first of an item in a group, of the first SHARED items. Items ascend in a group."""
    first = np.ones(len(group), np.bool_)
    first[1:] = (group[1:] != group[:-1]) | (item[1:] != item[:-1])
    places = np.flatnonzero(first)
    of_group = group[places]
    rank = np.arange(len(places)) - np.searchsorted(of_group, of_group)
    return places[rank < SHARED]


def _tables(hashes: U64, heads: U64) -> tuple[I64, U64]:
    """A quarter of the table is taken at most, and a 16th of the bits."""
    size = 1 << (4 * len(hashes) + 8).bit_length()
    slots, sieve = np.full(size, -1, np.int64), np.zeros(size // 8, np.uint64)
    kernels.hash_table(hashes, heads, slots, sieve)
    return slots, sieve


# ---- files


@dataclass(frozen=True)
class Search:
    """An index as tasks have it, and the table of letters that it was made with."""

    index: Index
    table: Letters
    needs: I64
    power: U64

    def spans(self, texts: pa.Array) -> I64:
        """Where in the texts items are: rows (text, item, start, end, start and end in the item, grams), in order."""
        found = kernels.find(*rows_of(texts), self.table, self.index, self.needs, self.power)
        return np.asarray(found[np.lexsort((found[:, 2], found[:, 1], found[:, 0]))])


def search_of(index: Index, table: Letters, ngram: int) -> Search:
    least = needs(ngram)
    return Search(index, table, least, kernels.powers(int(least[NGRAM]) + 1))


def save_index(directory: Path, words: Words, ngram: int) -> None:
    """Writes what `load_search` reads."""
    directory.mkdir(exist_ok=True)
    for name, array in (*make_index(words, ngram)._asdict().items(), *letters()._asdict().items()):
        save(directory / f"{name}.npy", array)
    save(directory / "ngram.npy", np.array([ngram], np.int64))


@lru_cache(maxsize=1)
def load_search(directory: Path) -> Search:
    """The search, its arrays mapped. (Mode "c", for kernels take no read-only arrays beside others.)"""

    def mapped(name: str) -> Any:
        return np.asarray(np.load(directory / f"{name}.npy", mmap_mode="c"))

    index = Index(*map(mapped, Index._fields))
    return search_of(index, Letters(*map(mapped, Letters._fields)), int(mapped("ngram")[0]))


def search_for(texts: Sequence[str], ngram: int) -> Search:
    """A search for texts, all in memory."""
    return search_of(make_index(words_of(pa.array(texts, pa.large_string())), ngram), letters(), ngram)
