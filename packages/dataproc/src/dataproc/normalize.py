"""Raw files → documents: repairs text (ftfy, NFC), drops what is short, sets aside what cannot be read.

in:  raw/<source>/*     out: documents/<source>: `documents-*` (id, text, source, meta; what is an answer, where a
                             source has them), `quarantine-*` (file, line, reason, excerpt)

A document is short if `clean(text)` has fewer than `min_chars` characters (SlimPajama's rule), or if it is empty, or if
an answer of it is when repaired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataproc import dialogues, turns
from dataproc.documents import ANSWERED, DIALOGUES, DOCUMENTS, QUICK, ShardWriter, batches
from dataproc.identifiers import content_ids
from dataproc.length import have_characters
from dataproc.raw import RawFile, require_unchanged
from dataproc.recipe.sources import Clean, Source
from dataproc.repair import repair
from dataproc.rows import Rows, rows
from dataproc.turns import Role
from manifest.errors import DataError
from manifest.record import Model, Shard

STAGE = "normalize/3"
QUARANTINE = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("excerpt", pa.string())])
BATCH_BYTES = 4_000_000
COUNTS = ("records", "unreadable", "short", "documents", "text_bytes")
UNANSWERED = "unanswered"


class Normalized(Model):
    """What a task made of its raw files. Counts are of records; `text_bytes` of the documents, in UTF-8. Unanswered
    ones, which only sources with answers have, are set aside as unreadable ones are, and counted apart.
    """

    shards: tuple[Shard, ...]
    records: int
    unreadable: int
    short: int
    documents: int
    text_bytes: int
    unanswered: int = 0


def counted(source: Source) -> tuple[str, ...]:
    """What is counted of a source."""
    return (*COUNTS, UNANSWERED) if source.answers else COUNTS


def schema_of(source: Source) -> pa.Schema:
    """The columns of a source's documents."""
    if not source.answers:
        return DOCUMENTS
    return ANSWERED if source.answer is not None else DIALOGUES


def normalize(
    numbered: tuple[int, tuple[RawFile, ...]], *, name: str, source: Source, clean: Clean, draft: Path
) -> Normalized:
    """One task: some raw files of a source → its shards."""
    number, files = numbered
    documents = ShardWriter(draft, f"documents-{number:05d}", schema_of(source), codec=QUICK)
    quarantine = ShardWriter(draft, f"quarantine-{number:05d}", QUARANTINE)
    counts = dict.fromkeys((*COUNTS, UNANSWERED), 0)
    for batch in read(files, name, source):
        counts["records"] += len(batch.ids) + len(batch.bad)
        counts["unreadable"] += len(batch.bad) - batch.unanswered
        counts["unanswered"] += batch.unanswered
        quarantine.write(pa.RecordBatch.from_pylist([b.model_dump() for b in batch.bad], schema=QUARANTINE))
        kept = documents_of(batch, name, source, clean)
        counts["short"] += len(batch.ids) - kept.num_rows
        counts["documents"] += kept.num_rows
        counts["text_bytes"] += int(pc.sum(pc.binary_length(kept["text"])).as_py() or 0)
        documents.write(kept)
    return Normalized(shards=(*documents.close(), *quarantine.close()), **counts)


def read(files: Sequence[RawFile], name: str, source: Source) -> Iterator[Rows]:
    """The records of files in batches, which know nothing of where files end."""
    waiting: list[Rows] = []
    size = 0
    read_rows = dialogues.rows if source.answers else rows
    for file in files:
        for found in read_rows(file, name, source, BATCH_BYTES):
            waiting.append(found)
            size += found.bytes
            if size >= BATCH_BYTES:
                yield _joined(waiting)
                waiting, size = [], 0
        require_unchanged(file)
    yield _joined(waiting)


def _joined(parts: Sequence[Rows]) -> Rows:
    if len(parts) == 1:
        return parts[0]
    return Rows(
        texts=pa.concat_arrays([part.texts for part in parts] or [pa.array([], pa.large_string())]),
        ids=[identifier for part in parts for identifier in part.ids],
        metas=[meta for part in parts for meta in part.metas],
        bad=[bad for part in parts for bad in part.bad],
        roles=[said for part in parts for said in part.roles],
        unanswered=sum(part.unanswered for part in parts),
    )


def documents_of(batch: Rows, name: str, source: Source, clean: Clean) -> pa.Table:
    """Repairs the texts, drops what is short or empty, and gives ids by content where the record had none."""
    repaired = repair(batch.texts) if clean.ftfy else batch.texts
    texts, more = _with_answers(repaired, batch.roles, source) if source.answers else (repaired, {})
    columns = {"text": texts, "id": pa.array(batch.ids, pa.string()), "meta": pa.array(batch.metas, pa.string())} | more
    kept = (pc.binary_length(texts).to_numpy() > 0) & have_characters(texts, clean.min_chars)
    if source.answers:
        kept &= turns.all_answered(repaired, batch.roles)
    if not kept.all():
        columns = {key: column.filter(pa.array(kept)) for key, column in columns.items()}
    if source.id is None:
        columns["id"] = content_ids(name, columns["text"])
    columns["source"] = pa.repeat(pa.scalar(name), len(columns["text"]))
    return pa.table(columns, schema=schema_of(source))


def _with_answers(
    said: pa.LargeStringArray, roles: Sequence[Sequence[Role]], source: Source
) -> tuple[pa.LargeStringArray, dict[str, pa.Array]]:
    """Turns → the documents' texts, and the column that says what of them is an answer."""
    texts, starts = turns.joined(said, roles)
    if source.answer is not None:
        return texts, {"loss_from": turns.loss_from(starts)}
    return texts, {"turns": turns.turns(starts, roles)}


def check_unreadable(name: str, counts: Mapping[str, Any], quarantine: Sequence[Path], clean: Clean) -> None:
    """Raises DataError if more of a source was set aside than `max_unreadable`, with the first reasons."""
    found, total = int(counts["unreadable"]) + int(counts.get(UNANSWERED, 0)), int(counts["records"])
    if total == 0:
        raise DataError(f"source {name!r} holds no record; check its files and their format")
    if found <= clean.max_unreadable * total:
        return
    first = islice((row for shard in quarantine for batch in batches(shard) for row in batch.to_pylist()), 3)
    listed = "\n".join(f"  {row['file']}:{row['line']}: {row['reason']}" for row in first)
    raise DataError(
        f"source {name!r}: {found} of {total} records cannot be {'used' if UNANSWERED in counts else 'read'} "
        f"({found / total:.1%}; the recipe allows {clean.max_unreadable:.1%}). The first:\n{listed}\n"
        "Correct the files, or the source's fields in the recipe, or raise clean.max_unreadable"
    )
