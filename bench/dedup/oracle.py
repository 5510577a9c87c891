"""The exact answer: every pair of documents with Jaccard ≥ threshold, by prefix filtering, and what must go.

texts → sets of word 5-grams (or character 13-grams) → pairs (a, b, jaccard) → components

It shares no code with the package that is measured. A text is lower-cased, ASCII punctuation is deleted and it is split
on white space; a text of fewer than n units is one gram, an empty one none. Grams are 64-bit hashes: with 10⁸ of them
the chance that any two different ones agree is under 3·10⁻⁴, and nothing else is approximate.

Prefix filtering (Bayardo et al. 2007; Xiao et al. 2008): order all grams by any total order. If J(a, b) ≥ t, then among
the first |a| - ⌈t|a|⌉ + 1 grams of a and the like of b there is a common one. With the rare ones first, few pairs share
any. Documents with equal sets stand for each other, so that copies cost nothing.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Unit = Literal["word", "char"]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

F = TypeVar("F", bound=Callable[..., Any])
compiled: Callable[[F], F] = njit(cache=True)

MAX_SLOTS = 1 << 28  # counts of grams by 28 of their bits at most: they make an order, so two in one slot do no harm
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MULTIPLIERS = np.random.default_rng(5).integers(0, 2**63, 64, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


@dataclass(frozen=True)
class Sets:
    """Each document's distinct grams, ascending, documents end to end."""

    grams: U64
    offsets: I64

    def __len__(self) -> int:
        return len(self.offsets) - 1


@dataclass(frozen=True)
class Pairs:
    """Pairs a < b of documents with their exact Jaccard. Of documents with equal sets each is paired with the first
    only, and the first stands for all in other pairs: the components are those of all pairs.
    """

    a: I64
    b: I64
    jaccard: F64


@dataclass(frozen=True)
class Score:
    """How a list of removed documents compares with the components: which member stays does not matter."""

    removed: int
    due: int
    precision: float
    recall: float


def gram_sets(texts: Iterable[str], unit: Unit = "word", n: int = 5) -> Sets:
    """The grams of texts."""
    found = [_grams(text, unit, n) for text in texts]
    offsets = np.zeros(len(found) + 1, np.int64)
    np.cumsum([len(grams) for grams in found], out=offsets[1:])
    return Sets(np.concatenate([np.empty(0, np.uint64), *found]), offsets)


def near_pairs(sets: Sets, threshold: float) -> Pairs:
    """All pairs of documents with different sets and Jaccard ≥ threshold, and each later copy of a set with the
    first."""
    first = _first_of_equals(sets)
    copies = np.flatnonzero(first != np.arange(len(first)))
    grams, documents = _prefixes(sets, first, threshold)
    order = np.lexsort((documents, grams))
    a, b, jaccard = _verified(grams[order], documents[order], sets.grams, sets.offsets, threshold)
    return Pairs(
        np.concatenate([first[copies], a]),
        np.concatenate([copies, b]),
        np.concatenate([np.ones(len(copies)), jaccard]),
    )


def components(pairs: Pairs, documents: int) -> I64:
    """A number per document, equal for those that are connected."""
    edges = coo_array((np.ones(len(pairs.a), bool), (pairs.a, pairs.b)), shape=(documents, documents))
    return np.asarray(connected_components(edges, directed=False)[1], np.int64)


def score(removed: NDArray[np.bool_], labels: I64) -> Score:
    """Precision: sum over components of min(removed, size - 1), by what was removed. Recall: by what was due."""
    sizes = np.bincount(labels)
    gone = np.bincount(labels[removed], minlength=len(sizes))
    right, due, total = int(np.minimum(gone, sizes - 1).sum()), int((sizes - 1).sum()), int(removed.sum())
    return Score(total, due, right / total if total else 1.0, right / due if due else 1.0)


def _grams(text: str, unit: Unit, n: int) -> U64:
    words = text.lower().translate(_PUNCTUATION).split()
    if unit == "word":
        units = np.fromiter(map(hash, words), np.int64, len(words)).view(np.uint64)
    else:
        units = np.frombuffer(" ".join(words).encode("utf-32-le"), np.uint32).astype(np.uint64)
    n = min(n, len(units))
    if n == 0:
        return np.empty(0, np.uint64)
    hashes = np.zeros(len(units) - n + 1, np.uint64)
    for position in range(n):
        hashes += _mixed(units[position : len(units) - n + 1 + position] ^ _MULTIPLIERS[-1 - position])
        hashes *= _MULTIPLIERS[position]
    return np.unique(_mixed(hashes))


def _mixed(values: U64) -> U64:
    """A permutation of the 64-bit numbers that spreads each bit over all (splitmix64's)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _first_of_equals(sets: Sets) -> I64:
    """For each document the first with the same set; an empty one stands for itself."""
    seen: dict[bytes, int] = {}
    first = np.arange(len(sets))
    for document in range(len(sets)):
        grams = sets.grams[sets.offsets[document] : sets.offsets[document + 1]]
        if len(grams):
            first[document] = seen.setdefault(grams.tobytes(), document)
    return first


def _prefixes(sets: Sets, first: I64, threshold: float) -> tuple[U64, I64]:
    """(gram, document) of each prefix, without grams that are nowhere else."""
    counts = np.zeros(min(MAX_SLOTS, 1 << (4 * len(sets.grams) + 2).bit_length()), np.uint16)
    _count(sets.grams, sets.offsets, first, counts)
    size = sum(_prefix(int(n), threshold) for n in np.diff(sets.offsets))
    grams, documents = np.empty(size, np.uint64), np.empty(size, np.int64)
    end = _fill_prefixes(sets.grams, sets.offsets, first, threshold, counts, grams, documents)
    return grams[:end], documents[:end]


@compiled
def _prefix(n: int, threshold: float) -> int:
    return n - int(np.ceil(threshold * n - 1e-9)) + 1 if n else 0


@compiled
def _slot(gram: np.uint64, counts: NDArray[np.uint16]) -> int:
    return int((gram >> np.uint64(36)) & np.uint64(len(counts) - 1))  # a power of two


@compiled
def _count(grams: U64, offsets: I64, first: I64, counts: NDArray[np.uint16]) -> None:
    for document in range(len(first)):
        if first[document] == document:
            for gram in grams[offsets[document] : offsets[document + 1]]:
                slot = _slot(gram, counts)
                counts[slot] = min(counts[slot] + 1, 65535)


@compiled
def _fill_prefixes(
    grams: U64,
    offsets: I64,
    first: I64,
    threshold: float,
    counts: NDArray[np.uint16],
    out_grams: U64,
    out_documents: I64,
) -> int:
    end = 0
    for document in range(len(first)):
        if first[document] != document:
            continue
        own = grams[offsets[document] : offsets[document + 1]]
        weights = np.empty(len(own), np.int64)
        for i in range(len(own)):
            weights[i] = counts[_slot(own[i], counts)]
        rare = np.argsort(weights, kind="mergesort")  # stable: grams of one count stay ascending
        for i in rare[: _prefix(len(own), threshold)]:
            if weights[i] > 1:
                out_grams[end], out_documents[end] = own[i], document
                end += 1
    return end


@compiled
def _verified(grams: U64, documents: I64, all_grams: U64, offsets: I64, threshold: float) -> tuple[I64, I64, F64]:
    """The pairs that share a gram of their prefixes, in order of gram; each is compared when it is first seen."""
    a, b, jaccard = [np.int64(0) for _ in range(0)], [np.int64(0) for _ in range(0)], [0.0 for _ in range(0)]
    seen = {(np.int64(-1), np.int64(-1))}  # typed by its first member
    start = 0
    while start < len(grams):
        end = start + 1
        while end < len(grams) and grams[end] == grams[start]:
            end += 1
        for i in range(start, end):
            for j in range(i + 1, end):
                x, y = documents[i], documents[j]
                n, m = offsets[x + 1] - offsets[x], offsets[y + 1] - offsets[y]
                if min(n, m) < threshold * max(n, m) - 1e-9 or (x, y) in seen:
                    continue
                seen.add((x, y))
                common = _common(all_grams[offsets[x] : offsets[x + 1]], all_grams[offsets[y] : offsets[y + 1]])
                value = common / (n + m - common)
                if value >= threshold:
                    a.append(x)
                    b.append(y)
                    jaccard.append(value)
        start = end
    return np.array(a), np.array(b), np.array(jaccard)


@compiled
def _common(x: U64, y: U64) -> int:
    i = j = common = 0
    while i < len(x) and j < len(y):
        if x[i] == y[j]:
            common += 1
            i += 1
            j += 1
        elif x[i] < y[j]:
            i += 1
        else:
            j += 1
    return common
