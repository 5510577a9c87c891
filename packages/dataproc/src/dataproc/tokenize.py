"""Documents → tokens: a stream per slice of a source, documents in order of id hash, each closed by end-of-text.

in:  deduped/<source>, tokenizers/<name>
out: tokens/<source>: shards `tokens-*` (.bin, .idx, .ids, and .mask where a source has answers; see manifest.indexed)

Shards hold ranges of the id hash: documents are exchanged by it, then each partition is sorted and encoded.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from tokenizers import Encoding, Tokenizer

from dataproc import answers
from dataproc.documents import DOCUMENTS, batches, documents_schema, file_shard
from dataproc.recipe.views import Slice
from dataproc.shuffle import Scattered, write_partitions
from dataproc.slices import chosen
from dataproc.stage import Draft, Made
from dataproc.templates import Template
from dataproc.vocab.files import declared_end, end_of_text, load, size_of
from dataproc.workers import Workers
from manifest.identity import hash64
from manifest.indexed import ShardWriter, token_dtype
from manifest.record import Model, Shard

STAGE = "tokenize/1"
SHARD_TEXT_BYTES = 256_000_000
BATCH_BYTES = 2_000_000  # up to three batches are in memory, and their tokens as objects take twenty times as much
SMALL_BYTES = 100_000
"""Of a batch where one core does all: its tokens stay in the cache."""
AHEAD = 2
SUFFIXES = (".bin", ".idx", ".ids")
MASK = ".mask"


class Tokenized(Model):
    """One shard of a stream. `files` are .bin, .idx, .ids, .mask in this order. The last two counts are of a shard with
    a mask (see answers.py).
    """

    files: tuple[Shard, ...]
    tokens: int
    documents: int
    learned: int = 0
    long_prompts: int = 0


def tokenize(
    shards: Sequence[Path],
    text_bytes: int,
    tokenizer: Path,
    *,
    stream: Slice,
    template: Template | None = None,
    workers: Workers,
    draft: Draft,
) -> Made:
    """The stage. tokenizer: its directory. text_bytes: of all documents in `shards`. stream: which of them it takes.

    template: how documents with answers are written. Documents without are learned as they are.
    """
    partitions = max(1, -(-text_bytes // SHARD_TEXT_BYTES))
    done = workers.exchange(
        partial(_scatter, stream=stream, partitions=partitions),
        shards,
        partial(_gather, tokenizer=tokenizer, template=template, draft=draft.path),
        partitions=partitions,
        result=Tokenized,
        scratch=draft.scratch,
        label="tokens",
    )
    done = [shard for shard in done if shard.documents]
    summary = {"documents": sum(d.documents for d in done), "tokens": sum(d.tokens for d in done)}
    if template is not None:
        summary |= {"learned": sum(d.learned for d in done), "long_prompts": sum(d.long_prompts for d in done)}
    return Made(tuple(file for d in done for file in d.files), summary)


def _scatter(shard: Path, file: Path, *, stream: Slice, partitions: int) -> None:
    more = [name for name in documents_schema(shard).names if name not in DOCUMENTS.names]
    wanted = ["id", "text", "meta", *more]
    table = pa.Table.from_batches([chosen(batch, stream) for batch in batches(shard, wanted)])
    table = table.select(["id", "text", *more])
    keys = np.array([hash64(i) for i in table["id"].to_pylist()], np.uint64)
    # Partition p holds the p-th of `partitions` equal ranges of the hash, so shards follow each other in order.
    partition = (keys >> np.uint64(32)) * np.uint64(partitions) >> np.uint64(32)
    write_partitions(file, table.append_column("key", pa.array(keys)), partition.astype(np.int64), partitions)


def _gather(partition: int, rows: Scattered, *, tokenizer: Path, template: Template | None, draft: Path) -> Tokenized:
    found = list(rows)
    stem = draft / f"tokens-{partition:05d}"
    if not found:
        return Tokenized(files=(), tokens=0, documents=0)
    table = pa.Table.from_batches(found).sort_by([("key", "ascending"), ("id", "ascending")])
    encoder = _encoder(tokenizer)
    end = end_of_text(encoder, declared_end(tokenizer))
    counts = answers.Counts()
    with ShardWriter(stem, token_dtype(size_of(encoder)), masked=template is not None) as writer:
        if template is None:
            _write(table, encoder, end, writer)
        else:
            counts = answers.write(table, answers.Encoder(encoder, template, end), writer)
    suffixes = SUFFIXES if template is None else (*SUFFIXES, MASK)
    return Tokenized(
        files=tuple(file_shard(stem.with_suffix(suffix), writer.documents) for suffix in suffixes),
        tokens=writer.tokens,
        documents=writer.documents,
        learned=counts.learned,
        long_prompts=counts.long_prompts,
    )


def _write(table: pa.Table, encoder: Tokenizer, end: int, writer: ShardWriter) -> None:
    for ids, encodings in _encoded(table, encoder):
        for identifier, encoding in zip(ids, encodings, strict=True):
            writer.add(identifier, [*encoding.ids, end])


def _encoded(table: pa.Table, encoder: Tokenizer) -> Iterator[tuple[list[str], list[Encoding]]]:
    """Batches of ids and encodings. While one is written, on one core, the next two are encoded on all, both at once:
    a batch ends with its last text on a core alone. On one core, one follows the other.
    """
    if int(os.environ.get("RAYON_NUM_THREADS") or len(os.sched_getaffinity(0))) == 1:
        for ids, texts in _batches(table, SMALL_BYTES):
            yield ids, encoder.encode_batch_fast(texts, add_special_tokens=False)
        return
    with ThreadPoolExecutor(AHEAD) as pool:
        waiting: deque[tuple[list[str], Future[list[Encoding]]]] = deque()
        for ids, texts in _batches(table, BATCH_BYTES):
            waiting.append((ids, pool.submit(encoder.encode_batch_fast, texts, add_special_tokens=False)))
            if len(waiting) > AHEAD:
                first, encodings = waiting.popleft()
                yield first, encodings.result()
        for last, encodings in waiting:
            yield last, encodings.result()


@lru_cache(maxsize=1)
def _encoder(tokenizer: Path) -> Tokenizer:
    encoder = load(tokenizer)
    encoder.encode_special_tokens = True  # a text that spells out <|endoftext|> does not end there
    return encoder


def _batches(table: pa.Table, batch_bytes: int) -> Iterator[tuple[list[str], list[str]]]:
    ids: list[str] = []
    texts: list[str] = []
    size = 0
    for batch in table.to_batches(max_chunksize=256):
        for identifier, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True):
            ids.append(identifier)
            texts.append(text)
            size += len(text)
            if size >= batch_bytes:
                yield ids, texts
                ids, texts, size = [], [], 0
    if ids:
        yield ids, texts
