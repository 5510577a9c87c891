"""Tombstones: which documents are to be as if they had never been there.

    {"document": "<id>"}    the document of this id
    {"text": "…"}           every document with J(text, document) ≥ threshold, and no more: its near-duplicates that are
                            less like the text stay. A document of the same cleaned text has J = 1

In: a JSONL file, a line for each. A text is taken as it is, and is cleaned as documents are for their shingles. Like
all pairs these are found by their bands, so of texts right at the threshold a few in a thousand may be missed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError, model_validator

from dataproc.dedup.band_keys import band_keys
from dataproc.dedup.cleaning import clean_all
from dataproc.dedup.group import Matching
from dataproc.dedup.minhash import is_signed, signatures
from dataproc.dedup.near import I64, SetsOf, near
from dataproc.dedup.shingles import ShingleSets, shingle_hashes, text_hashes, unique_sorted
from dataproc.documents import rows_of
from manifest.artifact import open_artifact
from manifest.errors import InputError
from manifest.identity import digest_of
from manifest.record import MANIFEST, Model

KIND = "tombstones"
TOMBSTONES = pa.schema([("document", pa.string()), ("text", pa.large_string()), ("reason", pa.string())])


class Tombstone(Model):
    """One line: a document or a text; the other is empty."""

    document: str = ""
    text: str = ""
    reason: str = ""

    @model_validator(mode="after")
    def _one_of(self) -> Tombstone:
        if bool(self.document) == bool(self.text) or (self.text and not self.text.strip()):
            raise ValueError("expected a document or a text, one of them and not empty")
        (self.document + self.text + self.reason).encode()  # a lone surrogate, which JSON can spell, is no text
        return self


@dataclass(frozen=True)
class Stones:
    """Tombstones, each once, in order."""

    documents: tuple[str, ...]
    texts: tuple[str, ...]

    @classmethod
    def of(cls, tombstones: Sequence[Tombstone]) -> Stones:
        documents = {stone.document for stone in tombstones if stone.document}
        texts = {stone.text for stone in tombstones if stone.text}
        return cls(tuple(sorted(documents)), tuple(sorted(texts)))

    @property
    def digest(self) -> str:
        """What they are, whatever the reasons and the order."""
        return digest_of({"documents": list(self.documents), "texts": list(self.texts)})

    def __bool__(self) -> bool:
        return bool(self.documents or self.texts)


NO_STONES = Stones((), ())


def read(path: str) -> list[Tombstone]:
    """The tombstones of a JSONL file, or of an artifact of them. Raises InputError naming the line that is wrong."""
    if Path(path, MANIFEST).is_file():
        return stones_of(open_artifact(path, KIND).directory)
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}); expected tombstones, one JSON object a line, or an artifact of them"
        ) from error
    return [_parse(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip()]


def stones_of(directory: Path) -> list[Tombstone]:
    """The tombstones of an artifact."""
    shards = sorted(directory.glob(f"{KIND}-*.parquet"))
    return [Tombstone(**row) for shard in shards for row in rows_of(shard).to_pylist()]


def tombstone(where: str, fields: object) -> Tombstone:
    """A tombstone of some fields. Raises InputError that names where they come from."""
    try:
        return Tombstone.model_validate(fields)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f'{where}: {reason}; give {{"document": id}} or {{"text": text}}') from error


def _parse(where: str, line: str) -> Tombstone:
    try:
        fields = json.loads(line)
    except ValueError as error:
        raise InputError(f'{where}: not JSON: {error}; a line is {{"document": id}} or {{"text": text}}') from error
    return tombstone(where, fields)


@dataclass(frozen=True)
class Texts:
    """Some texts in memory, by number, as `near` needs them (near.Known)."""

    texts: tuple[str, ...]
    matching: Matching

    @cached_property
    def hashes_N2(self) -> NDArray[np.uint64]:
        """What tells cleaned texts apart."""
        return text_hashes(self._cleaned)

    @cached_property
    def all_minima(self) -> NDArray[np.uint32]:
        shingles = shingle_hashes(self._cleaned, self.matching.shingling)
        return signatures(shingles, permutations=self.matching.permutations)

    def candidates(self, keys_NB: NDArray[np.uint64]) -> tuple[I64, I64, int]:
        keys, texts = self._keys
        first = np.searchsorted(keys, keys_NB.reshape(-1), "left")
        sizes = np.searchsorted(keys, keys_NB.reshape(-1), "right") - first
        rows = np.repeat(np.arange(keys_NB.size) // keys_NB.shape[1], sizes)
        places = np.arange(sizes.sum()) + np.repeat(first - (np.cumsum(sizes) - sizes), sizes)
        return rows, texts[places], 0

    def minima(self, texts: I64) -> NDArray[np.uint32]:
        return self.all_minima[texts]

    def shingle_sets(self, texts: I64) -> ShingleSets:
        return unique_sorted(shingle_hashes(self._cleaned.take(pa.array(texts)), self.matching.shingling))

    @cached_property
    def _cleaned(self) -> pa.LargeStringArray:
        return clean_all(pa.array(self.texts, pa.large_string()))

    @cached_property
    def _keys(self) -> tuple[NDArray[np.uint64], I64]:
        """The band keys of those with a shingle, ascending, and whose they are."""
        signed = np.flatnonzero(is_signed(self.all_minima))
        keys_NB = band_keys(self.all_minima[signed], self.matching.bands)
        order = np.argsort(keys_NB.reshape(-1), kind="stable")
        return keys_NB.reshape(-1)[order], np.repeat(signed, keys_NB.shape[1])[order]


def struck(
    stones: Texts, hashes_N2: NDArray[np.uint64], minima_ND: NDArray[np.uint32], sets_of: SetsOf
) -> tuple[I64, NDArray[np.float64]]:
    """The text that each row falls under, -1 for none, and J to it; of several the nearest, then the first.

    hashes_N2: of the cleaned texts of the rows of `minima_ND`. sets_of: as `near` has it.
    """
    stone, jaccard = np.full(len(minima_ND), -1, np.int64), np.zeros(len(minima_ND))
    if not stones.texts:
        return stone, jaccard
    found = near(stones, stones.matching, minima_ND, sets_of)
    for row, text, index in zip(found.query, found.text, found.jaccard, strict=True):
        if index > jaccard[row]:
            stone[row], jaccard[row] = text, index
    for number in reversed(range(len(stones.texts))):
        equal = (hashes_N2 == stones.hashes_N2[number]).all(axis=1) & ((jaccard < 1) | (stone > number))
        stone[equal], jaccard[equal] = number, 1.0
    return stone, jaccard
