"""Raw texts → MinHash signatures, bit for bit those that datasketch 2 makes of the same shingle hashes.

Signatures are (N, D) u32: column k holds the smallest value that the k-th of D permutations gives to any of the
document's shingle hashes. Two signatures are equal in a column with a probability that is the Jaccard index of the
two sets.

`Scheme` says how a permutation maps the low 32 bits h of a shingle hash. Signatures do not tell their scheme
and mix in silence, so it belongs into the fingerprint of the artifact that holds them.

    affine32   a · mix(h) + b mod 2³², a odd; mix is MurmurHash3's finaliser. datasketch's default since 2.0
    legacy     (a · h + b mod 2⁶⁴) mod (2⁶¹ - 1), low 32 bits. datasketch before 2.0
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.cleaning import Rows, chunks_of, clean_all, longest, raw_characters, settled, split
from dataproc.dedup.shingles import ShingleHashes, Shingling, shingle_hashes, shingle_sets, text_hashes
from dataproc.kernels.characters import tables
from dataproc.kernels.scratch import LANES, aligned, scratch
from dataproc.native import I64, U8, U32, U64, Native

Scheme = Literal["affine32", "legacy"]
UNSIGNED = 2**32 - 1  # every value of the signature of a document without shingles, as in datasketch

_MERSENNE = 2**61 - 1

_sketch_rows = Native("dataproc.kernels.minima", "sketch_rows")
_sign_rows = Native("dataproc.kernels.minima", "sign_rows")


@dataclass(frozen=True)
class Sketches:
    """What is known of each document without its text."""

    signatures: U32  # (N, D)
    shingles: I64  # positions, repeats included
    text_hash: U64  # (N, 2), of the cleaned text: shingles.text_hashes
    characters: I64  # code points of the raw text


class _Columns(NamedTuple):
    """Of a range of rows, as the kernel writes them."""

    signatures: U32  # as many columns as `_Permuted.width`
    shingles: I64
    text_hashes: U64
    characters: I64


class _Permuted(NamedTuple):
    """Factors and terms of the permutations, in numbers of 32 bits or of 64; the other two are empty. There may be
    more than asked for, to fill the last vector."""

    factors: U32
    terms: U32
    wide_factors: U64
    wide_terms: U64

    @property
    def width(self) -> int:
        return len(self.factors) + len(self.wide_factors)


def sketch(
    texts: pa.Array | pa.ChunkedArray,
    shingling: Shingling,
    permutations: int = 128,
    *,
    seed: int = 1,
    scheme: Scheme = "affine32",
    threads: int = 1,
) -> Sketches:
    """Raw texts → signatures, without anything in between that is as large as the texts.

    Python threads share the rows; the result does not depend on their number. Raises ValueError on a null and
    TypeError on anything but strings.
    """
    if threads < 1:
        raise ValueError(f"threads: {threads}; there is at least 1")
    permuted = _permuted(permutations, seed, scheme)
    parts = [part for rows in chunks_of(texts) for part in split(rows, threads)]
    if threads == 1 or len(parts) == 1:
        sketched = [_sketch(part, shingling, permuted) for part in parts]
    else:
        with ThreadPoolExecutor(threads) as pool:
            sketched = list(pool.map(lambda part: _sketch(part, shingling, permuted), parts))
    columns = sketched[0] if len(sketched) == 1 else _Columns(*map(np.concatenate, zip(*sketched, strict=True)))
    signatures = np.ascontiguousarray(columns.signatures[:, :permutations])
    return Sketches(signatures, columns.shingles, columns.text_hashes, columns.characters)


def signatures(
    shingles: ShingleHashes, permutations: int = 128, *, seed: int = 1, scheme: Scheme = "affine32"
) -> NDArray[np.uint32]:
    """One row per document; a document without shingles gets a row of `UNSIGNED` (see `is_signed`)."""
    permuted = _permuted(permutations, seed, scheme)
    rows = len(shingles.offsets) - 1
    own = scratch(0)
    flat = aligned(rows * permuted.width, np.uint32)
    _sign_rows(shingles.hashes, shingles.offsets, *permuted, own.hashes, own.mixed, own.seen, flat)
    return np.ascontiguousarray(flat.reshape(rows, permuted.width)[:, :permutations])


def warm() -> None:
    """Loads all kernels and tables that texts and signatures need, or makes them on the first run on a machine."""
    texts, shingling = pa.array(["Wärme"]), Shingling("char", 3)
    signatures(shingle_hashes(clean_all(texts), shingling))
    sketch(texts, shingling)
    shingle_sets(texts, shingling)
    text_hashes(texts)


def is_signed(signatures_ND: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Which documents have a signature. The others agree in every band and have nothing in common."""
    signed: NDArray[np.bool_] = (signatures_ND != UNSIGNED).any(axis=1)
    return signed


def _sketch(rows: Rows, shingling: Shingling, permuted: _Permuted) -> _Columns:
    columns, unsettled = _run(rows, shingling, permuted, is_settled=False)
    numbers = np.flatnonzero(unsettled)
    if len(numbers):
        others, again = _run(settled(rows, numbers), shingling, permuted, is_settled=True)
        assert not again.any(), "a settled text is not"
        columns.signatures[numbers] = others.signatures
        columns.shingles[numbers] = others.shingles
        columns.text_hashes[numbers] = others.text_hashes
        columns.characters[numbers] = raw_characters(rows, numbers)
    return columns


def _run(rows: Rows, shingling: Shingling, permuted: _Permuted, *, is_settled: bool) -> tuple[_Columns, U8]:
    count = len(rows.offsets) - 1
    flat, text_hashes = aligned(count * permuted.width, np.uint32), np.empty(2 * count, np.uint64)
    shingles, characters = np.empty(count, np.int64), np.empty(count, np.int64)
    unsettled = np.empty(count, np.uint8)
    own = scratch(longest(rows), shingling.n)
    settings = (is_settled, shingling.unit == "word", shingling.n)
    _sketch_rows(*rows, *tables(), *settings, *permuted, *own, flat, shingles, text_hashes, characters, unsettled)
    return _Columns(flat.reshape(count, permuted.width), shingles, text_hashes.reshape(-1, 2), characters), unsettled


@cache
def _permuted(permutations: int, seed: int, scheme: Scheme) -> _Permuted:
    if scheme not in get_args(Scheme):
        raise ValueError(f"no scheme {scheme!r}; expected one of {', '.join(get_args(Scheme))}")
    if scheme == "affine32":
        factors, terms = _affine32(permutations, seed)
        return _Permuted(_filled(factors), _filled(terms), np.zeros(0, np.uint64), np.zeros(0, np.uint64))
    wide_factors, wide_terms = _legacy(permutations, seed)
    return _Permuted(np.zeros(0, np.uint32), np.zeros(0, np.uint32), _filled(wide_factors), _filled(wide_terms))


def _filled(numbers: NDArray[Any]) -> NDArray[Any]:
    """Zeros up to a multiple of LANES, where vectors are loaded best."""
    whole = aligned(-(-len(numbers) // LANES) * LANES, numbers.dtype)
    whole[:] = 0
    whole[: len(numbers)] = numbers
    return whole


def _affine32(permutations: int, seed: int) -> tuple[U32, U32]:
    generator = np.random.RandomState(seed)
    halves = generator.randint(0, 1 << 31, permutations, dtype=np.uint32)
    terms = generator.randint(0, 1 << 32, permutations, dtype=np.uint32)
    return halves * np.uint32(2) + np.uint32(1), terms


def _legacy(permutations: int, seed: int) -> tuple[U64, U64]:
    generator = np.random.RandomState(seed)
    pairs = [
        (generator.randint(1, _MERSENNE, dtype=np.uint64), generator.randint(0, _MERSENNE, dtype=np.uint64))
        for _ in range(permutations)
    ]
    factors, terms = np.array(pairs, np.uint64).reshape(-1, 2).T.copy()
    return factors, terms
