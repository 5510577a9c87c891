"""BPE training that goes on from a base's tokens.

in:  words as the base encodes them, with their counts
out: new tokens, each made from two tokens that exist, in order: the pair that is most frequent then; of equals, the one
     with the smaller ids. Applied after the base's own merges they give exactly the words that training saw.

A character without a token (its bytes are fallback tokens, which no merge can join) is a symbol of MISSING + its code
point. It may become a token of its own; it saves all its bytes but one, as often as it is there.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MISSING = 1 << 24
LEAST_COUNT = 2  # what is there once says nothing of other texts

I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class New:
    """A new token. right: -1 where `left` is a character that had none."""

    id: int
    left: int
    right: int
    data: bytes


@dataclass(frozen=True)
class Words:
    """Unique words: their symbols end to end, the length of each, and how often it is there."""

    symbols: I32
    lengths: I64
    counts: I64


class Merging:
    """The state of training: words as linked lists of symbols, and the pairs that may be merged with their places."""

    def __init__(self, words: Words, data: dict[int, bytes], taken: set[bytes], allows: Callable[[bytes, bytes], bool]):
        """data: the bytes of the base's tokens. taken: those that are tokens already."""
        self.data, self.taken, self.allows = data, taken, allows
        self.symbols = words.symbols.astype(np.int64)
        self.weights = np.repeat(words.counts, words.lengths)
        places = np.arange(len(self.symbols), dtype=np.int64)
        ends = np.cumsum(words.lengths)
        self.after, self.before = places + 1, places - 1
        self.after[ends - 1] = -1
        self.before[ends - words.lengths] = -1
        self.counts: dict[tuple[int, int], int] = {}
        self.places: dict[tuple[int, int], list[I64]] = {}
        self.refused: set[tuple[int, int]] = set()
        self.heap: list[tuple[int, int, int]] = []
        self._add(places[self.after >= 0])
        self._add_missing()

    def learn(self, ids: Sequence[int]) -> Iterator[New]:
        """New tokens, one for each id, as long as there is a pair that is there twice."""
        for number in ids:
            chosen = self._best()
            if chosen is None:
                return
            left, right = chosen
            data = chr(left - MISSING).encode() if right < 0 else self.data[left] + self.data[right]
            self.data[number] = data
            self.taken.add(data)
            if right < 0:
                self._name(left, number)
            else:
                self._merge(left, right, number)
            yield New(number, left, right, data)

    def uses(self, ids: Sequence[int]) -> list[int]:
        """How often each token is in the words now."""
        there = (self.symbols >= 0) & (self.symbols < MISSING)
        counts = np.bincount(self.symbols[there], self.weights[there], minlength=max(ids, default=0) + 1)
        return [int(count) for count in counts[np.asarray(ids, np.int64)]]

    def _best(self) -> tuple[int, int] | None:
        while self.heap:
            negative, left, right = heapq.heappop(self.heap)
            now = self.counts.get((left, right), 0)
            if now < LEAST_COUNT:
                continue
            if now != -negative:
                heapq.heappush(self.heap, (-now, left, right))
            elif right < 0 or self.data[left] + self.data[right] not in self.taken:
                return left, right
        return None

    def _merge(self, left: int, right: int, number: int) -> None:
        at = np.unique(np.concatenate(self.places.pop((left, right))))
        second = self.after[at]
        at = at[(self.symbols[at] == left) & (second >= 0) & (self.symbols[second] == right)]
        if left == right:
            at = self._apart(at)
        second = self.after[at]
        third = self.after[second]
        self._drop(np.concatenate((self.before[at], at, second)))
        self.symbols[at] = number
        self.symbols[second] = -1
        self.after[at] = third
        self.after[second] = -1
        self.before[third[third >= 0]] = at[third >= 0]
        self._add(np.unique(np.concatenate((self.before[at], at))))
        self.counts.pop((left, right), None)

    def _name(self, symbol: int, number: int) -> None:
        (at,) = self.places.pop((symbol, -1))
        del self.counts[symbol, -1]
        self.symbols[at] = number
        self._add(np.unique(np.concatenate((self.before[at], at))))

    def _apart(self, at: I64) -> I64:
        """Of places whose pairs may share a symbol (aaa), those that are merged from the left on."""
        kept: list[int] = []
        for place, previous in zip(at.tolist(), self.before[at].tolist(), strict=True):
            if not kept or kept[-1] != previous:
                kept.append(place)
        return np.array(kept, np.int64)

    def _pairs(self, at: I64) -> tuple[I64, list[tuple[int, int]], I64]:
        """Places, those of pairs only; the pairs there; and which of these each is."""
        at = at[at >= 0]
        at = at[self.after[at] >= 0]
        keys = self.symbols[at] << 32 | self.symbols[self.after[at]]
        unique, which = np.unique(keys, return_inverse=True)
        return at, list(zip((unique >> 32).tolist(), (unique & 0xFFFFFFFF).tolist(), strict=True)), which

    def _drop(self, at: I64) -> None:
        at, pairs, which = self._pairs(np.unique(at))
        for pair, count in zip(pairs, np.bincount(which, self.weights[at]).tolist(), strict=True):
            if pair in self.counts:
                self.counts[pair] -= int(count)

    def _add(self, at: I64) -> None:
        at, pairs, which = self._pairs(at)
        if not pairs:
            return
        sums = np.bincount(which, self.weights[at]).tolist()
        groups = np.split(at[np.argsort(which, kind="stable")], np.cumsum(np.bincount(which))[:-1])
        for pair, count, places in zip(pairs, sums, groups, strict=True):
            if self._may(pair):
                self.counts[pair] = self.counts.get(pair, 0) + int(count)
                self.places.setdefault(pair, []).append(places)
                heapq.heappush(self.heap, (-self.counts[pair], *pair))

    def _may(self, pair: tuple[int, int]) -> bool:
        if pair in self.refused:
            return False
        left, right = self.data.get(pair[0]), self.data.get(pair[1])
        if pair in self.counts:
            return True
        if left is None or right is None or left + right in self.taken or not self.allows(left, right):
            self.refused.add(pair)
            return False
        return True

    def _add_missing(self) -> None:
        at = np.flatnonzero(self.symbols >= MISSING)
        symbols, which = np.unique(self.symbols[at], return_inverse=True)
        groups = np.split(at[np.argsort(which, kind="stable")], np.cumsum(np.bincount(which))[:-1])
        for symbol, count, places in zip(
            symbols.tolist(), np.bincount(which, self.weights[at]).tolist(), groups, strict=False
        ):
            saved = int(count) * (len(chr(symbol - MISSING).encode()) - 1)
            self.counts[symbol, -1] = saved
            self.places[symbol, -1] = [places]
            heapq.heappush(self.heap, (-saved, symbol, -1))
