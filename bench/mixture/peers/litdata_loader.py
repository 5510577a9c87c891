"""litdata: token chunks written by `optimize`, read by StreamingDataset with its TokensLoader, as for pre-training.

    prepare TOKENS SEQ_LEN OUT        OUT/<stream>: chunks of about 64 MB
    read OUT VARIANT BATCH SEQ_LEN TOKENS    prints tokens and seconds (wall, CPU) after the first batches

Variants, after "LLM Pre-training" of its documentation; StreamingDataLoader without worker processes, for what is
asked is tokens a core, and workers add the cost of handing batches over:

    combined  a StreamingDataset per stream, shuffled, in a CombinedStreamingDataset with weights
    single    one shuffled StreamingDataset of the largest stream alone, which mixes nothing
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset, TokensLoader, optimize

PIECE = 1 << 16
WARM = 20


def pieces(span: tuple[int, int], file: str) -> Iterator[torch.Tensor]:
    """Tokens of a stream, as `optimize` takes them."""
    ids = np.load(file, mmap_mode="r")[span[0] : span[1]].astype(np.int32)
    yield torch.from_numpy(ids)


def prepare(tokens: Path, seq_len: int, out: Path) -> None:
    weights = json.loads((tokens / "weights.json").read_text())
    for name in weights:
        file = tokens / f"{name}.npy"
        size = np.load(file, mmap_mode="r").size
        optimize(
            fn=partial(pieces, file=str(file)),
            inputs=[(first, min(first + PIECE, size)) for first in range(0, size, PIECE)],
            output_dir=str(out / name),
            chunk_size=seq_len * 8000,
            item_loader=TokensLoader(block_size=seq_len),
            num_workers=1,
        )
    (out / "weights.json").write_text(json.dumps(weights))


def batches(out: Path, variant: str, batch: int, seq_len: int) -> Iterator[Any]:
    """Batches of (batch, seq_len) tensors, epoch after epoch."""
    weights = json.loads((out / "weights.json").read_text())

    def stream(name: str) -> StreamingDataset:
        loader = TokensLoader(block_size=seq_len)
        return StreamingDataset(input_dir=str(out / name), item_loader=loader, shuffle=True, drop_last=True, seed=0)

    if variant == "single":
        dataset: Any = stream(max(weights, key=weights.get))
    else:
        streams = [stream(name) for name in weights]
        dataset = CombinedStreamingDataset(
            datasets=streams, seed=0, weights=list(weights.values()), iterate_over_all=False
        )
    loader = StreamingDataLoader(dataset, batch_size=batch, num_workers=0, drop_last=True)
    while True:
        yield from loader


def read(out: Path, variant: str, batch: int, seq_len: int, tokens: int) -> None:
    count, began, cpu = 0, 0.0, 0.0
    for number, rows in enumerate(batches(out, variant, batch, seq_len)):
        if number == WARM - 1:
            began, cpu = time.perf_counter(), time.process_time()
        elif number >= WARM:
            count += rows.numel()
            if count >= tokens:
                break
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - began
    print(json.dumps({"tokens": count, "wall_s": wall_s, "cpu_s": cpu_s, "dtype": str(rows.dtype)}))


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
    else:
        out, variant, batch, seq_len, tokens = sys.argv[2:]
        read(Path(out), variant, int(batch), int(seq_len), int(tokens))
