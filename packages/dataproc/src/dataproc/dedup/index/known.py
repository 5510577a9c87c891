"""Reading an index by number, by id, by text and by band key. Only the rows that are asked for are read.

documents     id, source, characters, text, in `documents-*.arrow` of each part
texts         their signature in `minima-*.npy`, and themselves in `texts-*.bin`, of each part
tables        band keys, ids, text hashes, and the documents of each text, of each batch
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.index.state import Batch, Index
from dataproc.dedup.index.tables import BANDS, HASHES, IDS, MEMBERS, find, read_table
from dataproc.dedup.index.texts import read_texts
from dataproc.dedup.links import BUCKET_CAP
from dataproc.dedup.shingles import ShingleSets, shingle_hashes, unique_sorted
from dataproc.dedup.sign import minima_of
from dataproc.shuffle import partition_of
from manifest.errors import CorruptArtifact

I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

DOCUMENTS = pa.schema([("id", pa.string()), ("source", pa.string()), ("characters", pa.int64()), ("text", pa.int64())])


@dataclass(frozen=True)
class KnownTexts:
    """The living texts of an index, as `near` needs them (near.Known). `dead` are the others."""

    index: Index
    dead: I64

    @classmethod
    def of(cls, index: Index) -> KnownTexts:
        return cls(index, index.dead_texts())

    def candidates(self, keys_NB: U64) -> tuple[I64, I64, int]:
        """As `near.Known` says; of a hot bucket the texts that were there first."""
        keys_M, bands = np.ascontiguousarray(keys_NB).reshape(-1), keys_NB.shape[1]
        rows, texts, cut = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
        for batch in self.index.batches:
            table_of = partition_of(keys_M, batch.numbers.band_tables)
            for number in range(batch.numbers.band_tables):
                wanted = np.flatnonzero(table_of == number)
                keys, texts_of = read_table(batch.directory / band_file(number), BANDS)
                found = find(keys, keys_M[wanted], limit=BUCKET_CAP)
                rows.append(wanted[found.queries] // bands)
                texts.append(texts_of[found.rows].astype(np.int64) + batch.numbers.first_text)
                cut += found.cut
        row, text = np.concatenate(rows), np.concatenate(texts)
        alive = ~np.isin(text, self.dead)
        return row[alive], text[alive], cut

    def minima(self, texts: I64) -> NDArray[np.uint32]:
        minima_ND = np.empty((len(texts), self.index.settings.permutations), np.uint32)
        for directory, part, _, places, rows in self.index.where_texts.split(texts):
            minima_ND[places] = minima_of(directory / minima_file(part))[rows]
        return minima_ND

    def shingle_sets(self, texts: I64) -> ShingleSets:
        cleaned = np.empty(len(texts), object)
        for directory, part, size, places, rows in self.index.where_texts.split(texts):
            cleaned[places] = read_texts(directory / texts_file(part), size, rows)
        array = pa.array(cleaned.tolist(), pa.large_string())
        return unique_sorted(shingle_hashes(array, self.index.settings.shingling))


def documents_of(index: Index, numbers: I64) -> pl.DataFrame:
    """document (its number), id, source, characters, text: a row for each number, in this order."""
    tables = [DOCUMENTS.empty_table()]
    at = [np.zeros(0, np.int64)]
    for directory, part, _, places, rows in index.where_documents.split(numbers):
        tables.append(pa.Table.from_batches([_documents(directory / documents_file(part)).take(pa.array(rows))]))
        at.append(places)
    whole = pl.DataFrame(pl.from_arrow(pa.concat_tables(tables)))
    order = np.argsort(np.concatenate(at))
    return whole[order].insert_column(0, pl.Series("document", numbers, pl.Int64))


def _documents(path: Path) -> pa.RecordBatch:
    try:
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).get_batch(0)
    except (pa.ArrowException, OSError) as error:
        raise CorruptArtifact(f"{path} cannot be read ({error}): it is part of an index; restore it") from error


def members_of(index: Index, texts: I64) -> tuple[I64, I64]:
    """(places in `texts`, documents of these texts), removed ones included."""
    place, document = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for batch in index.batches:
        keys, documents = read_table(batch.directory / "members.table", MEMBERS)
        found = find(keys, texts)
        place.append(found.queries)
        document.append(documents[found.rows].astype(np.int64) + batch.numbers.first_document)
    return np.concatenate(place), np.concatenate(document)


def texts_by_hash(index: Index, hashes_N2: U64) -> tuple[I64, I64]:
    """(rows of `hashes_N2`, texts of this hash), dead ones included."""
    row, text = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for batch in index.batches:
        low, high, texts = read_table(batch.directory / "hashes.table", HASHES)
        found = find(low, hashes_N2[:, 0])
        same = high[found.rows] == hashes_N2[found.queries, 1]
        row.append(found.queries[same])
        text.append(texts[found.rows[same]].astype(np.int64) + batch.numbers.first_text)
    return np.concatenate(row), np.concatenate(text)


def documents_by_id(index: Index, ids: pa.Array, keys: U64) -> I64:
    """The document of each id, -1 where there is none. keys: hash64 of the ids."""
    documents = np.full(len(ids), -1, np.int64)
    for batch in index.batches:
        row, number = _of_key(batch, keys)
        theirs = documents_of(index, number)["id"].to_arrow().cast(pa.string())
        same = pa.compute.equal(ids.take(pa.array(row)), theirs).to_numpy(zero_copy_only=False).astype(bool)
        documents[row[same]] = number[same]
    return documents


def _of_key(batch: Batch, keys: U64) -> tuple[I64, I64]:
    hashes, documents = read_table(batch.directory / "ids.table", IDS)
    found = find(hashes, keys)
    return found.queries, documents[found.rows].astype(np.int64) + batch.numbers.first_document


def band_file(number: int) -> str:
    return f"bands-{number:05d}.table"


def documents_file(part: int) -> str:
    return f"documents-{part:05d}.arrow"


def minima_file(part: int) -> str:
    return f"minima-{part:05d}.npy"


def texts_file(part: int) -> str:
    return f"texts-{part:05d}.bin"
