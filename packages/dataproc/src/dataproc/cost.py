"""What a build up to `deduped` will cost, predicted before it starts.

The work on text (repair, signatures, shingle sets, Parquet) is timed on a sample of the recipe's own documents, on this
machine; the work per stage, per document and per band are constants that were measured. How many documents have
near-duplicates nobody knows beforehand, so the prediction holds for a stated share of them.

    seconds      of one CPU, without the start of workers
    disk         what stays (artifacts), and what is there for a while beside it (scratch)
    shuffle      what passes from tasks to tasks through files
    memory       of a worker, and of the driver, which holds a few numbers per document

bench/results/dedup.md has it beside builds of four sizes.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from dataproc.dedup.minhash import sketch
from dataproc.dedup.shingles import Shingling, shingle_sets
from dataproc.documents import QUICK, RowDigest
from dataproc.estimate import Estimate
from dataproc.recipe import DataRecipe
from dataproc.repair import repair

SAMPLE_BYTES = 4_000_000
REPEATS = 3

ALIKE = 0.35
"""The share of documents assumed to share a band with another; SlimPajama removed 35 % of RedPajama's documents."""

STAGE_S = {"documents": 0.1, "signatures": 0.05, "clusters": 0.4, "ledger": 0.05, "deduped": 0.05}
"""A stage, whatever its input: its files, its notes, the first use of its kernels."""
DOCUMENT_S = {"documents": 13e-6, "signatures": 3e-6, "clusters": 0.0, "ledger": 3e-6, "deduped": 4e-6}
"""A document, whatever its length: naming and numbering, writing its row. Of clusters that is BAND_S."""
BAND_S = 0.12e-6
"""A document in a band: its key, its place in a partition, its bucket."""
PAIR_S = 4e-6
"""An exact comparison; PAIRS of them per document that shares a band."""
PAIRS = 3.0
DRIVER_BYTES = 48
"""Per document: arrays of numbers while components are found."""
WORKER_BYTES = 250_000_000
"""The interpreter with its libraries, and a batch of documents."""
ROW_BYTES = 80
"""A row of signatures without the minima: its id, counts, hash of the text."""


@dataclass(frozen=True)
class Rates:
    """Seconds per byte of text; size: bytes of Parquet per byte of text."""

    parse: float
    repair: float
    sketch: float
    sets: float
    read: float
    write: float
    size: float
    shingles: float
    """Shingles per byte of text."""


@dataclass(frozen=True)
class Cost:
    """See the module's docstring. Bytes, and seconds by stage."""

    seconds: Mapping[str, float]
    artifacts: int
    scratch: int
    shuffle: int
    worker: int
    driver: int

    @property
    def cpu_s(self) -> float:
        return sum(self.seconds.values())


def measure(texts: list[str], recipe: DataRecipe) -> Rates:
    """Times the work on a sample of documents, the best of some repeats."""
    sample = _some(texts)
    array = pa.array(sample, pa.large_string())
    size = max(1, sum(len(text.encode()) for text in sample))
    shingling = Shingling(recipe.dedup.unit, recipe.dedup.ngram)
    table = pa.table({"text": array})
    shard = _parquet(table)
    sets = shingle_sets(array, shingling)
    return Rates(
        parse=_time(partial(_parsed, _lines_of(sample))) / size,
        repair=_time(lambda: repair(array)) / size,
        sketch=_time(lambda: sketch(array, shingling, recipe.dedup.permutations)) / size,
        sets=_time(lambda: shingle_sets(array, shingling)) / size,
        read=_time(lambda: pq.read_table(io.BytesIO(shard))) / size,
        write=_time(lambda: _parquet(table)) / size,
        size=len(shard) / size,
        shingles=len(sets.hashes) / size,
    )


def predict(sources: Mapping[str, Estimate], recipe: DataRecipe, rates: Rates, *, memory_bytes: int) -> Cost:
    """The cost of a build of these sources."""
    return of_size(
        sum(source.documents for source in sources.values()),
        sum(source.text_bytes for source in sources.values()),
        recipe,
        rates,
        memory_bytes=memory_bytes,
    )


def of_size(documents: int, text_bytes: int, recipe: DataRecipe, rates: Rates, *, memory_bytes: int) -> Cost:
    """The cost of a build of so many documents and bytes of text."""
    dedup = recipe.dedup
    bands, minima = dedup.banding.count, 4 * dedup.permutations
    verified = dedup.verify == "exact"
    alike_bytes, alike = ALIKE * text_bytes, ALIKE * documents
    sets_s = text_bytes * rates.read + alike_bytes * rates.sets  # made once: by the clusters, or else by the ledger
    seconds = {
        "documents": text_bytes * (rates.parse + rates.repair + rates.write),
        "signatures": text_bytes * (rates.read + rates.sketch),
        "clusters": documents * bands * BAND_S + (sets_s + alike * PAIRS * PAIR_S) * verified,
        "ledger": sets_s * (not verified),
        "deduped": text_bytes * (rates.read + rates.write),
    }
    seconds = {stage: STAGE_S[stage] + documents * DOCUMENT_S[stage] + of_it for stage, of_it in seconds.items()}
    keys = 16 * documents * bands
    sets = int(8 * alike_bytes * rates.shingles + alike * minima)
    return Cost(
        seconds=seconds,
        artifacts=int(2 * text_bytes * rates.size + documents * (minima + 2 * ROW_BYTES)),
        scratch=keys + sets if verified else max(keys, sets),
        shuffle=keys + 24 * documents + int(alike * ROW_BYTES),
        worker=WORKER_BYTES + memory_bytes,
        driver=WORKER_BYTES + DRIVER_BYTES * documents,
    )


def lines(cost: Cost, workers: int) -> Iterator[str]:
    """The prediction for a person."""
    stages = ", ".join(f"{stage} {_duration(seconds)}" for stage, seconds in cost.seconds.items())
    yield (
        f"up to deduped, about {_duration(cost.cpu_s)} of CPU ({stages}); with {workers} workers about "
        f"{_duration(cost.cpu_s / workers)}, if {ALIKE:.0%} of the documents share a band with another"
    )
    yield (
        f"  disk: {_size(cost.artifacts)} of artifacts and up to {_size(cost.scratch)} of scratch; "
        f"{_size(cost.shuffle)} pass between tasks; memory: {_size(cost.worker)} a worker, {_size(cost.driver)} the "
        "driver"
    )


def _some(texts: list[str]) -> list[str]:
    """Texts from all over the list, up to SAMPLE_BYTES."""
    step = max(1, sum(map(len, texts)) // SAMPLE_BYTES)
    return texts[::step]


def _time(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(1 + REPEATS):  # the first compiles
        began = time.process_time()
        work()
        best = min(best, time.process_time() - began)
    return best


def _lines_of(texts: list[str]) -> bytes:
    """A raw file of these texts."""
    return zstandard.compress(b"".join(orjson.dumps({"text": text}) + b"\n" for text in texts))


def _parsed(raw: bytes) -> list[Any]:
    return [orjson.loads(line) for line in zstandard.decompress(raw).splitlines()]


def _parquet(table: pa.Table) -> bytes:
    """As a shard of documents is written, with its digest."""
    sink = io.BytesIO()
    pq.write_table(table, sink, **QUICK, use_dictionary=False, write_statistics=False)
    RowDigest(table.schema).update(table)
    hashlib.sha256(sink.getbuffer()).digest()
    return sink.getvalue()


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _size(size_bytes: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB")):
        if size_bytes >= size:
            return f"{size_bytes / size:.1f} {unit}"
    return f"{size_bytes / 1e6:.0f} MB"
