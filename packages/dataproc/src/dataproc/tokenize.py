"""Documents → tokens: a stream per slice of a source, documents in order of id hash, each closed by end-of-text.

in:  deduped/<source>, tokenizers/<name>
out: tokens/<source>: shards `tokens-*` (.bin, .idx, .ids, and .mask where a source has answers; see manifest.indexed)

Shards hold ranges of the id hash. Documents are encoded as they come; what is exchanged by the hash, and sorted, are
their tokens: in 16 bits half the bytes of their texts.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Encoding, Tokenizer

from dataproc import answers
from dataproc.documents import DOCUMENTS, batches, documents_schema, file_shard
from dataproc.lean import keep_freed_memory
from dataproc.recipe.views import Slice
from dataproc.shuffle import Scattered, write_partitions
from dataproc.slices import chosen
from dataproc.stage import Draft, Made
from dataproc.templates import Template
from dataproc.vocab.files import declared_end, end_of_text, load, size_of
from dataproc.workers import Workers
from manifest.cpus import cpus_here
from manifest.identity import hash64
from manifest.indexed import ShardWriter, token_dtype
from manifest.record import Model, Shard

STAGE = "tokenize/1"
SHARD_TEXT_BYTES = 256_000_000
BATCH_BYTES = 2_000_000  # up to three batches are in memory, and their tokens as objects take twenty times as much
SMALL_BYTES = 100_000
"""Of a batch where one core does all: its tokens stay in the cache."""
AHEAD = 2
ROWS = 256
"""So many documents at a time become strings of Python, and their tokens are put in order."""
SUFFIXES = (".bin", ".idx", ".ids")
MASK = ".mask"
ENCODED = pa.schema([("id", pa.string()), ("key", pa.uint64()), ("tokens", pa.large_binary())])
MASKED = ENCODED.append(pa.field("learned", pa.large_binary()))
"""Documents as they are exchanged. key: the hash of the id. tokens: as bytes of the stream's dtype; learned: a byte for
each of them.
"""


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
    encoding = _Encoding(stream, tokenizer, template)
    gather = partial(_gather, encoding=encoding, draft=draft.path)
    if partitions == len(shards) == 1:
        one = partial(_encode_and_gather, encoding=encoding, gather=gather)
        done = workers.map(one, shards, result=Tokenized, notes=draft.notes / "tokens", label="tokens")
    else:
        done = workers.exchange(
            partial(_scatter, encoding=encoding, partitions=partitions),
            shards,
            gather,
            partitions=partitions,
            result=Tokenized,
            scratch=draft.scratch / "encoded",
            label="tokens",
        )
    done = [shard for shard in done if shard.documents]
    summary = {"documents": sum(d.documents for d in done), "tokens": sum(d.tokens for d in done)}
    if template is not None:
        summary |= {"learned": sum(d.learned for d in done), "long_prompts": sum(d.long_prompts for d in done)}
    return Made(tuple(file for d in done for file in d.files), summary)


@dataclass(frozen=True)
class _Encoding:
    """Which documents, by which tokenizer (its directory), written how."""

    stream: Slice
    tokenizer: Path
    template: Template | None

    @property
    def loaded(self) -> _Loaded:
        return _load(self.tokenizer)


class _Loaded(NamedTuple):
    """A tokenizer; the token that closes a document; what holds its tokens."""

    encoder: Tokenizer
    end: int
    dtype: np.dtype[np.generic]


@lru_cache(maxsize=1)
def _load(tokenizer: Path) -> _Loaded:
    keep_freed_memory()
    encoder = load(tokenizer)
    encoder.encode_special_tokens = True  # a text that spells out <|endoftext|> does not end there
    return _Loaded(encoder, end_of_text(encoder, declared_end(tokenizer)), token_dtype(size_of(encoder)))


def _encode_and_gather(shard: Path, *, encoding: _Encoding, gather: Callable[[int, Scattered], Tokenized]) -> Tokenized:
    """One task: a shard of documents that is all of its stream."""
    return gather(0, _encoded(shard, encoding))


def _scatter(shard: Path, file: Path, *, encoding: _Encoding, partitions: int) -> None:
    schema = ENCODED if encoding.template is None else MASKED
    table = pa.Table.from_batches(_encoded(shard, encoding), schema)
    # Partition p holds the p-th of `partitions` equal ranges of the hash, so shards follow each other in order.
    partition = (table["key"].to_numpy() >> np.uint64(32)) * np.uint64(partitions) >> np.uint64(32)
    write_partitions(file, table, partition.astype(np.int64), partitions)


def _gather(partition: int, rows: Scattered, *, encoding: _Encoding, draft: Path) -> Tokenized:
    found = list(rows)
    stem, masked = draft / f"tokens-{partition:05d}", encoding.template is not None
    if not found:
        return Tokenized(files=(), tokens=0, documents=0)
    counts, dtype = answers.Counts(), encoding.loaded.dtype
    with ShardWriter(stem, dtype, masked=masked) as writer:
        for batch in _in_order(pa.Table.from_batches(found)):
            for document in batch.to_pylist():
                learned = np.frombuffer(document["learned"], np.bool_) if masked else None
                writer.add(document["id"], np.frombuffer(document["tokens"], dtype), learned)
                if learned is not None:
                    counts = counts.with_document(learned)
    suffixes = (*SUFFIXES, MASK) if masked else SUFFIXES
    return Tokenized(
        files=tuple(file_shard(stem.with_suffix(suffix), writer.documents) for suffix in suffixes),
        tokens=writer.tokens,
        documents=writer.documents,
        learned=counts.learned,
        long_prompts=counts.long_prompts,
    )


def _in_order(table: pa.Table) -> Iterator[pa.RecordBatch]:
    """Documents by the hash of the id, then by the id, some at a time."""
    rows = table.combine_chunks()
    order = pc.sort_indices(rows, [("key", "ascending"), ("id", "ascending")])
    for first in range(0, len(rows), ROWS):
        yield from rows.take(order.slice(first, ROWS)).to_batches()


def _encoded(shard: Path, encoding: _Encoding) -> Iterator[pa.RecordBatch]:
    """The documents of a shard that the stream takes, in the order of the shard."""
    more = [name for name in documents_schema(shard).names if name not in DOCUMENTS.names]
    columns = ["id", "text", *(["meta"] if encoding.stream.where else []), *more]
    documents = (chosen(batch, encoding.stream) for batch in batches(shard, columns))
    encoder, end, dtype = encoding.loaded
    if encoding.template is None:
        for ids, encodings in _plainly(documents, encoder):
            tokens = [found.ids for found in encodings]  # new lists
            for of_document in tokens:
                of_document.append(end)
            yield _batch(ids, [_joined(tokens, dtype)])
    else:
        for ids, masked in answers.encoded(documents, answers.Encoder(encoder, encoding.template, end)):
            all_tokens = _joined([tokens.tolist() for tokens, _ in masked], dtype)
            yield _batch(ids, [all_tokens, _joined([learned.tolist() for _, learned in masked], np.bool_)])


def _batch(ids: list[str], columns: list[pa.LargeBinaryArray]) -> pa.RecordBatch:
    keys = pa.array(np.array([hash64(i) for i in ids], np.uint64))
    schema = ENCODED if len(columns) == 1 else MASKED
    return pa.RecordBatch.from_arrays([pa.array(ids, pa.string()), keys, *columns], schema=schema)


def _joined(lists: Sequence[Collection[int]], dtype: npt.DTypeLike) -> pa.LargeBinaryArray:
    """Lists of numbers → the bytes of each as numbers of a dtype. Raises OverflowError if one does not fit."""
    ends = np.cumsum([0, *map(len, lists)])
    joined = np.fromiter(chain.from_iterable(lists), dtype, ends[-1])
    return pa.LargeBinaryArray.from_buffers(
        pa.large_binary(), len(lists), [None, pa.py_buffer(ends * joined.itemsize), pa.py_buffer(joined)]
    )


def _plainly(documents: Iterable[pa.RecordBatch], encoder: Tokenizer) -> Iterator[tuple[list[str], list[Encoding]]]:
    """Batches of ids and encodings. While one is written, on one core, the next two are encoded on all, both at once:
    a batch ends with its last text on a core alone. On one core, one follows the other.
    """
    if int(os.environ.get("RAYON_NUM_THREADS") or cpus_here()) == 1:
        for ids, texts in _batches(documents, SMALL_BYTES):
            yield ids, encoder.encode_batch_fast(texts, add_special_tokens=False)
        return
    with ThreadPoolExecutor(AHEAD) as pool:
        waiting: deque[tuple[list[str], Future[list[Encoding]]]] = deque()
        for ids, texts in _batches(documents, BATCH_BYTES):
            waiting.append((ids, pool.submit(encoder.encode_batch_fast, texts, add_special_tokens=False)))
            if len(waiting) > AHEAD:
                first, encodings = waiting.popleft()
                yield first, encodings.result()
        for last, encodings in waiting:
            yield last, encodings.result()


def _batches(documents: Iterable[pa.RecordBatch], batch_bytes: int) -> Iterator[tuple[list[str], list[str]]]:
    ids: list[str] = []
    texts: list[str] = []
    size = 0
    for identifier, text in _ids_and_texts(documents):
        ids.append(identifier)
        texts.append(text)
        size += len(text)
        if size >= batch_bytes:
            yield ids, texts
            ids, texts, size = [], [], 0
    if ids:
        yield ids, texts


def _ids_and_texts(documents: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, str]]:
    for batch in documents:
        for first in range(0, batch.num_rows, ROWS):
            some = batch.slice(first, ROWS)
            yield from zip(some["id"].to_pylist(), some["text"].to_pylist(), strict=True)
