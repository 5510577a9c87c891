"""What arrives → the files of a batch, with all that it takes to find and verify its near-duplicates later.

of each shard that arrives (a part), if anything of it is kept:
    documents-*.arrow       id, source, characters, text                              of its documents that are kept
    minima-*.npy            (texts, permutations) u32                                 of the texts that it brings first
    texts-*.bin             the same texts, cleaned (texts.py)
of the whole (tables.py):
    bands-*.table           band key → text, cut by the key's low bits
    ids.table, hashes.table hash of an id → document; hash of a text → text
    members.table           text of the index → documents of the batch
    edges.table             near-duplicates: text, text, J; both ways
    report-*.parquet        what became of its documents (verdicts.py)

Nothing else is read later: the documents that were added may go.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from dataproc.dedup.band_keys import band_keys
from dataproc.dedup.cleaning import clean_all
from dataproc.dedup.group import ShardPair
from dataproc.dedup.index.arrivals import Arrivals
from dataproc.dedup.index.graph import Edges
from dataproc.dedup.index.known import DOCUMENTS, band_file, documents_file, minima_file, texts_file
from dataproc.dedup.index.state import EDGES_FILE, Index, Numbers, Part
from dataproc.dedup.index.tables import BANDS, EDGES, HASHES, IDS, MEMBERS, write_table
from dataproc.dedup.index.texts import TextWriter
from dataproc.dedup.index.verdicts import REPORT
from dataproc.dedup.minhash import is_signed
from dataproc.dedup.sign import MinimaWriter, column_of, minima_of
from dataproc.documents import RowDigest, ShardWriter, file_sha256, rows_at, rows_of
from dataproc.shuffle import Scattered, partition_of, write_batches, write_partitions
from dataproc.stage import Draft
from dataproc.workers import Workers
from manifest.record import Model, Shard

KEYS_PER_TABLE = 64_000_000
TEXTS_AT_ONCE = 2048

I64 = NDArray[np.int64]


class Files(Model):
    """What a task wrote."""

    shards: tuple[Shard, ...]


def write_batch(
    index: Index, arrivals: Arrivals, edges: Edges, report: pl.DataFrame, *, workers: Workers, draft: Draft
) -> tuple[tuple[Shard, ...], Numbers]:
    """Writes everything; returns the records of the files, and the numbers of what is in them."""
    new = arrivals.first & (arrivals.text >= index.texts)
    wanted = [pair for pair in arrivals.pairs if arrivals.kept[pair.first : pair.first + pair.rows].any()]
    np.save(draft.scratch / "kept.npy", arrivals.kept)
    np.save(draft.scratch / "new.npy", new)
    done = workers.map(
        partial(_write_part, scratch=draft.scratch, out=draft.path, permutations=index.settings.permutations),
        list(enumerate(wanted)),
        result=Files,
        notes=draft.notes / "parts",
        label="documents of the batch",
    )
    parts = tuple(Part(documents=_count(arrivals.kept, pair), texts=_count(new, pair)) for pair in wanted)
    bands = _write_bands(index, wanted, int(new.sum()), workers, draft)
    tables = _write_tables(index, arrivals, new, edges, draft.path)
    numbers = Numbers(first_document=index.documents, first_text=index.texts, parts=parts, band_tables=len(bands))
    shards = [*(shard for files in done for shard in files.shards), *bands, *tables]
    return (*shards, *write_report(report, draft.path)), numbers


def write_report(report: pl.DataFrame, out: Path) -> tuple[Shard, ...]:
    writer = ShardWriter(out, "report", REPORT)
    writer.write(report.to_arrow())
    return writer.close()


def write_edges(edges: Edges, out: Path) -> Shard:
    """The table of edges, from each end."""
    both = (np.concatenate([edges.a, edges.b]), np.concatenate([edges.b, edges.a]), np.tile(edges.jaccard, 2))
    return write_table(out / EDGES_FILE, EDGES, both)


def _count(mask: NDArray[np.bool_], pair: ShardPair) -> int:
    return int(mask[pair.first : pair.first + pair.rows].sum())


def _write_part(numbered: tuple[int, ShardPair], *, scratch: Path, out: Path, permutations: int) -> Files:
    """One task: what a shard brings."""
    part, pair = numbered
    shard = slice(pair.first, pair.first + pair.rows)
    kept = np.flatnonzero(np.load(scratch / "kept.npy", mmap_mode="r")[shard])
    new = np.flatnonzero(np.load(scratch / "new.npy", mmap_mode="r")[shard])
    text = np.load(scratch / "arrived-text.npy", mmap_mode="r")[shard][kept]
    shards = [_write_documents(pair, kept, text, out / documents_file(part))]
    if len(new):
        with MinimaWriter(out / minima_file(part), len(new), permutations) as minima:
            minima.write(minima_of(pair.minima)[new])
        with TextWriter(out / texts_file(part)) as texts:
            hashes_N2 = column_of(pair.signatures, "text_hash", "<u8", 2).astype(np.uint64)
            for start in range(0, len(new), TEXTS_AT_ONCE):
                some = new[start : start + TEXTS_AT_ONCE]
                cleaned = clean_all(rows_at(pair.documents, some, ["text"])["text"])
                texts.write(cleaned, hashes_N2[some])
        shards += [minima.shard, texts.shard]
    return Files(shards=tuple(shards))


def _write_documents(pair: ShardPair, kept: I64, text: I64, path: Path) -> Shard:
    named = rows_of(pair.signatures, ["id", "characters"]).take(pa.array(kept))
    source = pa.array([pair.source] * len(kept), pa.string())
    table = pa.table([named["id"], source, named["characters"], pa.array(text)], schema=DOCUMENTS).combine_chunks()
    digest = RowDigest(DOCUMENTS)
    digest.update(table)
    write_batches(path, DOCUMENTS, table.to_batches())
    return Shard(
        path=path.name,
        rows=table.num_rows,
        digest=digest.hexdigest(),
        bytes=path.stat().st_size,
        sha256=file_sha256(path),
    )


def _write_bands(
    index: Index, pairs: Sequence[ShardPair], texts: int, workers: Workers, draft: Draft
) -> tuple[Shard, ...]:
    """The tables of band keys."""
    tables = max(1, -(-texts * index.settings.matching.bands.count // KEYS_PER_TABLE))
    done = workers.exchange(
        partial(_scatter, index=index, scratch=draft.scratch, tables=tables),
        pairs,
        partial(_gather, out=draft.path),
        partitions=tables,
        result=Files,
        scratch=draft.scratch / "bands",
        label="band keys",
    )
    return tuple(shard for files in done for shard in files.shards)


def _scatter(pair: ShardPair, file: Path, *, index: Index, scratch: Path, tables: int) -> None:
    """The band keys of the texts that a shard brings, by table."""
    shard = slice(pair.first, pair.first + pair.rows)
    new = np.flatnonzero(np.load(scratch / "new.npy", mmap_mode="r")[shard])
    text = np.load(scratch / "arrived-text.npy", mmap_mode="r")[shard][new] - index.texts
    minima_ND = minima_of(pair.minima)[new]
    signed = is_signed(minima_ND)
    keys = np.ascontiguousarray(band_keys(minima_ND[signed], index.settings.matching.bands)).reshape(-1)
    owners = np.repeat(text[signed].astype(np.uint32), index.settings.matching.bands.count)
    write_partitions(file, pa.table({"key": keys, "text": owners}), partition_of(keys, tables), tables)


def _gather(table: int, rows: Scattered, *, out: Path) -> Files:
    keys, texts = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint32)]
    for batch in rows:
        keys.append(batch["key"].to_numpy())
        texts.append(batch["text"].to_numpy())
    columns = (np.concatenate(keys), np.concatenate(texts))
    return Files(shards=(write_table(out / band_file(table), BANDS, columns),))


def _write_tables(
    index: Index, arrivals: Arrivals, new: NDArray[np.bool_], edges: Edges, out: Path
) -> tuple[Shard, ...]:
    hashes = [column_of(pair.signatures, "text_hash", "<u8", 2) for pair in arrivals.pairs]
    hashes_N2 = np.concatenate([np.zeros((0, 2), np.uint64), *hashes])[new]
    document = np.arange(arrivals.kept.sum(), dtype=np.uint32)
    text = (arrivals.text[new] - index.texts).astype(np.uint32)
    return (
        write_table(out / "ids.table", IDS, (arrivals.keys[arrivals.kept], document)),
        write_table(out / "hashes.table", HASHES, (hashes_N2[:, 0], hashes_N2[:, 1], text)),
        write_table(out / "members.table", MEMBERS, (arrivals.text[arrivals.kept], document)),
        write_edges(edges, out),
    )
