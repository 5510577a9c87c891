"""Hugging Face datasets: tokens grouped into rows, memory-mapped Arrow, read in batches of torch tensors.

    prepare TOKENS SEQ_LEN OUT        OUT/<stream>: rows of SEQ_LEN tokens (`save_to_disk`); OUT/mixed: the mixture of
                                      one epoch (`interleave_datasets`), shuffled and written (`flatten_indices`)
    read OUT VARIANT BATCH SEQ_LEN TOKENS    prints tokens and seconds (wall, CPU) after the first batches

Variants, after "Differences between Dataset and IterableDataset" of its documentation, from plain to fast:

    mapped    interleaved by weights, shuffled, map-style: indices into memory-mapped rows; torch's DataLoader
    streamed  every stream as an iterable of 64 shards with a shuffle buffer, interleaved by weights; torch's DataLoader
    written   the mixture written down in its order, read from end to end by `iter(batch_size=…)`
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, List, Value, disable_progress_bars, interleave_datasets, load_from_disk
from torch.utils.data import DataLoader

SHARDS, BUFFER = 64, 1000
WARM = 20


def prepare(tokens: Path, seq_len: int, out: Path) -> None:
    features = Features({"input_ids": List(Value("int32"), length=seq_len)})
    weights = json.loads((tokens / "weights.json").read_text())
    streams = []
    for name in weights:
        ids = np.load(tokens / f"{name}.npy").astype(np.int32)
        rows = ids[: ids.size // seq_len * seq_len]
        column = pa.FixedSizeListArray.from_arrays(pa.array(rows), seq_len)
        table = pa.table({"input_ids": column})
        dataset = Dataset(table).cast(features)
        dataset.save_to_disk(str(out / name))
        streams.append(load_from_disk(str(out / name)))
    mixed = interleave_datasets(
        streams, probabilities=list(weights.values()), seed=0, stopping_strategy="all_exhausted"
    )
    mixed.shuffle(seed=0).flatten_indices().save_to_disk(str(out / "mixed"))
    (out / "weights.json").write_text(json.dumps(weights))


def batches(out: Path, variant: str, batch: int) -> Iterator[Any]:
    """Batches of (batch, seq_len) tensors, epoch after epoch."""
    weights = json.loads((out / "weights.json").read_text())
    if variant == "written":
        mixed = load_from_disk(str(out / "mixed")).with_format("torch")
        while True:
            for rows in mixed.iter(batch_size=batch, drop_last_batch=True):
                yield rows["input_ids"]
    streams: list[Any] = [load_from_disk(str(out / name)) for name in weights]
    if variant == "streamed":
        streams = [s.to_iterable_dataset(SHARDS).shuffle(seed=0, buffer_size=BUFFER) for s in streams]
    shares = list(weights.values())
    mixed = interleave_datasets(streams, probabilities=shares, seed=0, stopping_strategy="all_exhausted")
    if variant == "mapped":
        mixed = mixed.shuffle(seed=0)
    loader = DataLoader(mixed.with_format("torch"), batch_size=batch, drop_last=True)
    while True:
        for rows in loader:
            yield rows["input_ids"]


def read(out: Path, variant: str, batch: int, tokens: int) -> None:
    count, began, cpu = 0, 0.0, 0.0
    for number, rows in enumerate(batches(out, variant, batch)):
        if number == WARM - 1:
            began, cpu = time.perf_counter(), time.process_time()
        elif number >= WARM:
            count += rows.numel()
            if count >= tokens:
                break
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - began
    print(json.dumps({"tokens": count, "wall_s": wall_s, "cpu_s": cpu_s, "dtype": str(rows.dtype)}))


if __name__ == "__main__":
    disable_progress_bars()
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        out, variant, batch, _seq_len, count = sys.argv[2:]
        read(Path(out), variant, int(batch), int(count))
