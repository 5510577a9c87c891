"""Text → tokens: Winnow's stage beside `tokenizers` in a bare loop, over the same documents and cores.

    python -m bench.mixture.tokenising bare|winnow TOKENIZER DOCUMENTS…

`bare` has all texts in memory before the clock starts, and keeps nothing of what it encodes. `winnow` is the stage as a
build runs it, with serial workers: it reads Parquet, exchanges and sorts the documents by the hash of their ids, and
writes `.bin`, `.idx` and `.ids` with their digests. Prints seconds (wall and CPU of all threads), bytes and tokens.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pyarrow.parquet as pq

BATCH = {False: 32, True: 1000}  # texts, on one core and on several, whose work ends together in larger ones
WARM = 200  # documents that are encoded before the clock starts

Encoded = tuple[int, int]
"""Documents and tokens, with an end-of-text for each document."""


def main() -> None:
    mode, tokenizer, *shards = sys.argv[1:]
    files = [Path(shard) for shard in shards]
    run = {"bare": _bare, "winnow": _winnow}[mode](Path(tokenizer), files)
    size = sum(len(t.encode()) for f in files for t in pq.read_table(f, columns=["text"])["text"].to_pylist())
    began, cpu = time.perf_counter(), time.process_time()
    documents, tokens = run()
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - began
    print(json.dumps({"wall_s": wall_s, "cpu_s": cpu_s, "bytes": size, "documents": documents, "tokens": tokens}))


def _bare(tokenizer: Path, shards: Sequence[Path]) -> Callable[[], Encoded]:
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    encoder.encode_special_tokens = True
    texts = [text for shard in shards for text in pq.read_table(shard, columns=["text"])["text"].to_pylist()]
    encoder.encode_batch_fast(texts[:WARM], add_special_tokens=False)

    size = BATCH[len(os.sched_getaffinity(0)) > 1]

    def run() -> Encoded:
        tokens = 0
        for first in range(0, len(texts), size):
            batch = encoder.encode_batch_fast(texts[first : first + size], add_special_tokens=False)
            tokens += sum(map(len, batch))
        return len(texts), tokens + len(texts)

    return run


def _winnow(tokenizer: Path, shards: Sequence[Path]) -> Callable[[], Encoded]:
    from dataproc.recipe.views import Slice
    from dataproc.stage import Draft
    from dataproc.tokenize import _load, tokenize
    from dataproc.workers import Serial

    size = sum(pq.read_table(shard, columns=["text"]).nbytes for shard in shards)
    texts = pq.read_table(shards[0], columns=["text"])["text"][:WARM].to_pylist()
    _load(tokenizer).encoder.encode_batch_fast(texts, add_special_tokens=False)

    def run() -> Encoded:
        with tempfile.TemporaryDirectory() as scratch:
            draft = Draft(Path(scratch))
            made = tokenize(shards, size, tokenizer, stream=Slice(source="bench"), workers=Serial(), draft=draft)
            return made.summary["documents"], made.summary["tokens"]

    return run


if __name__ == "__main__":
    main()
