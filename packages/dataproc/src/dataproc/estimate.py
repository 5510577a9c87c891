"""What a build would read, before it reads it: an estimate from the beginnings of some files of each source.

Files are counted, and their bytes; documents and tokens are those of the sample, scaled up. Nothing is deduplicated.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow.parquet as pq
import zstandard

from dataproc import dialogues
from dataproc.dedup.cleaning import clean as cleaned
from dataproc.raw import RawFile, RawRoot, Unreadable, is_plain_text, open_bytes, records
from dataproc.recipe import DataRecipe
from dataproc.recipe.sources import Clean, Source
from dataproc.rows import RecordError, record_text
from dataproc.turns import JOINER

SAMPLE_FILES = 8
SAMPLE_RECORDS = 500
SAMPLE_BYTES = 4_000_000
SAMPLE_TOKENIZED = 200_000
"""Characters of a source that are tokenized: about as many tokens at most, and some seconds of a slow tokenizer."""
BYTES_PER_TOKEN = 4.0
"""Of the tokenizers in use, on English; 3 to 5 is usual. For tokenizers that the build is yet to train."""


@dataclass(frozen=True)
class Estimate:
    """A source: raw bytes, documents of enough text, their bytes in UTF-8, tokens.

    exact: documents were counted, not estimated. texts: some of them.
    """

    files: int
    bytes: int
    documents: int
    text_bytes: int
    tokens: int
    exact: bool
    texts: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class Estimates:
    """By source; and what a user should know before the build."""

    sources: dict[str, Estimate]
    warnings: tuple[str, ...]


@dataclass
class _Sample:
    """What was read: raw bytes and files, records, those without text, documents and their text."""

    raw_bytes: float = 0.0
    files: int = 0
    whole: bool = True
    records: int = 0
    bad: int = 0
    short: int = 0
    documents: int = 0
    text_bytes: int = 0
    texts: list[str] = field(default_factory=list)


def estimate(recipe: DataRecipe, raw: str) -> Estimates:
    """Reads at most a few MB per source. Raises DataError: no files, or one that is damaged; InputError for `raw`."""
    root = RawRoot(raw)
    tokenizer = _tokenizer(recipe)
    found: dict[str, Estimate] = {}
    warnings: list[str] = []
    for name, source in recipe.sources.items():
        files = root.files(name, source)
        sample = _sample(files, source, source.cleaning(recipe.clean))
        warnings += _warnings(name, source, sample, source.cleaning(recipe.clean))
        found[name] = _scaled(files, sample, _bytes_per_token(sample, tokenizer))
    if recipe.tokenizer.grown is not None:
        warnings.append("tokens are those of the base; with the tokens that it is to get they will be fewer")
    if tokenizer is None:
        warnings.append(f"tokens are estimated at {BYTES_PER_TOKEN:g} bytes each; the tokenizer is yet to be trained")
    return Estimates(found, tuple(warnings))


def _sample(files: Sequence[RawFile], source: Source, clean: Clean) -> _Sample:
    step = max(1, len(files) // SAMPLE_FILES)
    chosen = files[::step][:SAMPLE_FILES]
    sample = _Sample(whole=len(chosen) == len(files))
    for file in chosen:
        _read(file, source, clean, sample)
    return sample


def _read(file: RawFile, source: Source, clean: Clean, sample: _Sample) -> None:
    """Adds the beginning of a file."""
    sample.files += 1
    read: list[bytes] = []
    size = 0
    for _, record in records(file):
        if len(read) == SAMPLE_RECORDS or size > SAMPLE_BYTES:
            sample.whole = False
            sample.raw_bytes += _raw_bytes(file, read)
            return
        read.append(orjson.dumps(record.excerpt if isinstance(record, Unreadable) else record, default=str))
        size += len(read[-1])
        _count(record, source, clean, sample)
    sample.raw_bytes += file.bytes


def _count(record: dict[str, Any] | Unreadable, source: Source, clean: Clean, sample: _Sample) -> None:
    sample.records += 1
    text = None if isinstance(record, Unreadable) else _text_of(record, source)
    if text is None:
        sample.bad += 1
        return
    encoded = text.encode("utf-8", "replace")  # a lone surrogate becomes one character, as in the build
    if not text or len(cleaned(encoded.decode())) < clean.min_chars:
        sample.short += 1
    else:
        sample.documents += 1
        sample.text_bytes += len(encoded)
        sample.texts.append(text)


def _text_of(record: dict[str, Any], source: Source) -> str | None:
    try:
        if source.answers:
            return JOINER.join(turn.text for turn in dialogues.turns_of(record, source))
        return record_text(record, source.text)
    except RecordError:
        return None


def _raw_bytes(file: RawFile, read: Sequence[bytes]) -> float:
    """About how many bytes of the file hold what was read."""
    if file.path.endswith(".parquet"):
        with pq.ParquetFile(open_bytes(file.uri)) as parquet:
            return float(file.bytes * len(read) / max(1, parquet.metadata.num_rows))
    lines = b"\n".join([*read, b""])
    if file.path.endswith(".gz"):
        return len(zlib.compress(lines))
    return len(zstandard.compress(lines)) if file.path.endswith(".zst") else len(lines)


def _scaled(files: Sequence[RawFile], sample: _Sample, bytes_per_token: float) -> Estimate:
    total = sum(file.bytes for file in files)
    one_each = all(is_plain_text(file.path) for file in files)
    share = sample.files / len(files) if one_each else sample.raw_bytes / total if total else 1.0
    factor = 1.0 if sample.whole else 1 / max(share, 1e-12)
    return Estimate(
        files=len(files),
        bytes=total,
        documents=round(sample.documents * factor),
        text_bytes=round(sample.text_bytes * factor),
        tokens=round(sample.text_bytes * factor / bytes_per_token),
        exact=sample.whole,
        texts=tuple(sample.texts),
    )


def _tokenizer(recipe: DataRecipe) -> Any | None:
    """The one that is there before the build; of one that is to be extended, its base."""
    _, place = recipe.tokenizer.existing
    if place is None:
        return None
    from dataproc.vocab.files import load, place_of  # tokenizers takes a while to import

    return load(place_of(place))


def _bytes_per_token(sample: _Sample, tokenizer: Any | None) -> float:
    if tokenizer is None or not sample.text_bytes:
        return BYTES_PER_TOKEN
    texts = _spread(sample.texts, SAMPLE_TOKENIZED)
    tokens = sum(len(encoding.ids) for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    return sum(len(text.encode("utf-8", "replace")) for text in texts) / max(1, tokens)


def _spread(texts: Sequence[str], characters: int) -> list[str]:
    """Some of them, from the first to the last, long ones cut: about so many characters together, or all there are."""
    cut = [text[: characters // 25] for text in texts]
    return cut[:: -(-sum(map(len, cut)) // characters)]


def _warnings(name: str, source: Source, sample: _Sample, clean: Clean) -> Iterator[str]:
    read = f"of {sample.records} records read of source {name!r}"
    if sample.bad:
        what = "prompt and answer" if source.answers else "text"
        where = " and ".join(repr(field) for field in source.fields)
        yield f"{sample.bad} {read} have no {what} under {where}, and would be set aside"
    if sample.short:
        yield f"{sample.short} {read} are shorter than min_chars {clean.min_chars}, and would be dropped"


def lines(found: Estimates) -> Iterator[str]:
    """The estimates for a person: a line per source, then what to know."""
    for name, source in found.sources.items():
        about = "" if source.exact else "about "
        yield (
            f"{name}: {source.files:,} files of {source.bytes / 1e6:,.1f} MB; {about}{source.documents:,} documents "
            f"before dedup, about {source.tokens:,} tokens"
        )
    for warning in found.warnings:
        yield f"warning: {warning}"
