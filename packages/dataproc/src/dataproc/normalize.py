"""Raw files → documents: repairs text (ftfy, NFC), drops what is short, sets aside what cannot be read.

in:  raw/<source>/*     out: documents/<source>: `documents-*` (id, text, source, meta), `quarantine-*` (file, line,
                             reason, excerpt)

A document is short if `clean(text)` has fewer than `min_chars` characters (SlimPajama's rule), or if it is empty.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataproc.dedup.cleaning import character_counts, clean_all
from dataproc.documents import DOCUMENTS, ShardWriter, batches
from dataproc.raw import RawFile, Unreadable, records, require_unchanged
from dataproc.recipe import Clean, Source
from manifest.errors import DataError
from manifest.identity import canonical_json, content_id
from manifest.record import Model, Shard

STAGE = "normalize/1"
QUARANTINE = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("excerpt", pa.string())])
BATCH_CHARS = 4_000_000  # of text, metadata and excerpts
ROW_CHARS = 100  # what a row takes besides
COUNTS = ("records", "unreadable", "short", "documents", "text_bytes")
FIX = ftfy.TextFixerConfig(normalization="NFC", explain=False)

# What ftfy can change in ASCII text: entities, carriage returns and other control characters (ftfy.fixes).
_ASCII_TO_FIX = re.compile(r"[&\x00-\x08\x0b-\x1f\x7f]")


class Normalized(Model):
    """What a task made of its raw files. Counts are of records; `text_bytes` of the documents, in UTF-8."""

    shards: tuple[Shard, ...]
    records: int
    unreadable: int
    short: int
    documents: int
    text_bytes: int


def normalize(
    numbered: tuple[int, tuple[RawFile, ...]], *, name: str, source: Source, clean: Clean, draft: Path
) -> Normalized:
    """One task: some raw files of a source → its shards."""
    number, files = numbered
    documents = ShardWriter(draft, f"documents-{number:05d}", DOCUMENTS)
    quarantine = ShardWriter(draft, f"quarantine-{number:05d}", QUARANTINE)
    counts = dict.fromkeys(COUNTS, 0)
    for rows, bad in _batches(files, name, source):
        counts["records"] += len(rows) + len(bad)
        counts["unreadable"] += len(bad)
        quarantine.write(pa.RecordBatch.from_pylist([b.model_dump() for b in bad], schema=QUARANTINE))
        kept = _documents(rows, clean)
        counts["short"] += len(rows) - kept.num_rows
        counts["documents"] += kept.num_rows
        counts["text_bytes"] += int(pc.sum(pc.binary_length(kept["text"])).as_py() or 0)
        documents.write(kept)
    return Normalized(shards=(*documents.close(), *quarantine.close()), **counts)


def _batches(
    files: Sequence[RawFile], name: str, source: Source
) -> Iterator[tuple[list[dict[str, str]], list[Unreadable]]]:
    rows: list[dict[str, str]] = []
    bad: list[Unreadable] = []
    size = 0
    for file in files:
        for line, record in records(file):
            row = record if isinstance(record, Unreadable) else _row(record, name, source, partial(_bad, file, line))
            if isinstance(row, Unreadable):
                bad.append(row)
                size += ROW_CHARS + len(row.excerpt)
            else:
                rows.append(row)
                size += ROW_CHARS + len(row["text"]) + len(row["meta"])
            if size >= BATCH_CHARS:
                yield rows, bad
                rows, bad, size = [], [], 0
        require_unchanged(file)
    yield rows, bad


def _bad(file: RawFile, line: int, reason: str, record: dict[str, Any]) -> Unreadable:
    return Unreadable(file=file.path, line=line, reason=reason, excerpt=reprlib.repr(record))


def _row(
    record: dict[str, Any], name: str, source: Source, bad: Callable[[str, dict[str, Any]], Unreadable]
) -> dict[str, str] | Unreadable:
    """A record → a row with its text still as it was read."""
    text = record.get(source.text)
    if not isinstance(text, str):
        found = f"is {type(text).__name__}" if source.text in record else f"is missing (fields: {', '.join(record)})"
        return bad(f"field {source.text!r} {found}; expected a string", record)
    identifier = ""
    if source.id is not None:
        value = record.get(source.id)
        if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
            return bad(f"field {source.id!r} is {value!r}; expected an id (a string or a whole number)", record)
        identifier = f"{name}/{value}"
    other = {key: value for key, value in record.items() if key not in (source.text, source.id)}
    if list(other) == ["meta"] and isinstance(other["meta"], dict):
        other = other["meta"]
    try:
        meta = canonical_json(other).decode()
        text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        return bad(f"it has no stable form: {error}", record)
    return {"id": identifier, "text": text, "source": name, "meta": meta}


def _documents(rows: list[dict[str, str]], clean: Clean) -> pa.Table:
    """Repairs the texts, drops what is short or empty, and gives ids by content where the record had none."""
    for row in rows:
        if clean.ftfy:
            row["text"] = fix_text(row["text"])
        row["id"] = row["id"] or content_id(row["source"], row["text"])
    table = pa.Table.from_pylist(rows, schema=DOCUMENTS)
    enough = character_counts(clean_all(table["text"])) >= clean.min_chars
    present = np.asarray(pc.binary_length(table["text"])) > 0
    return table.filter(pa.array(enough & present))


def fix_text(text: str) -> str:
    """ftfy's repair with NFC, skipped for ASCII text that holds nothing ftfy changes."""
    if text.isascii() and not _ASCII_TO_FIX.search(text):
        return text
    return str(ftfy.fix_text(text, FIX))


def check_unreadable(name: str, counts: Mapping[str, Any], quarantine: Sequence[Path], clean: Clean) -> None:
    """Raises DataError if more of a source was unreadable than `max_unreadable`, with the first reasons."""
    found, total = int(counts["unreadable"]), int(counts["records"])
    if total == 0:
        raise DataError(f"source {name!r} holds no record; check its files and their format")
    if found <= clean.max_unreadable * total:
        return
    rows = islice((row for shard in quarantine for batch in batches(shard) for row in batch.to_pylist()), 3)
    listed = "\n".join(f"  {row['file']}:{row['line']}: {row['reason']}" for row in rows)
    raise DataError(
        f"source {name!r}: {found} of {total} records cannot be read ({found / total:.1%}; the recipe allows "
        f"{clean.max_unreadable:.1%}). The first:\n{listed}\n"
        "Correct the files, or the source's fields in the recipe, or raise clean.max_unreadable"
    )
