"""What the stage `documents` costs, part by part: CPU seconds per 100 MB of text, and MB of text per CPU second.

    python bench/normalize.py raw/wikipedia raw/github/*.jsonl.zst [--id id] [--repeat 5]

A directory is a source, and so are the files that are named themselves. Of each part the least of several runs is told.
`all` is the stage itself; parts are measured each by itself, with its input in memory, so they add up to somewhat less.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa

from dataproc import raw
from dataproc.documents import DOCUMENTS, RowDigest, ShardWriter, file_sha256
from dataproc.identifiers import content_ids
from dataproc.length import have_characters
from dataproc.normalize import Normalized, documents_of, normalize, read
from dataproc.raw import RawFile
from dataproc.recipe.sources import Clean, Source
from dataproc.repair import repair

PARTS = ("decompress", "parse", "repair", "length", "ids", "table", "parquet", "row digest", "file hash")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", nargs="+", type=Path, help="raw files, or directories of them")
    parser.add_argument("--text", default="text", help="the field that holds the text")
    parser.add_argument("--id", help="the field that holds the id; without it ids are made from the content")
    parser.add_argument("--min-chars", type=int, default=200)
    parser.add_argument("--repeat", type=int, default=3)
    asked = parser.parse_args()
    source = Source(files=("*",), text=asked.text, id=asked.id)
    clean = Clean(min_chars=asked.min_chars)
    print(f"{'source':<16}{'text MB':>9}{'docs':>8}{'MB/s':>7}{'all':>7}", *(f"{part:>11}" for part in PARTS))
    for name, paths in sources(asked.raw).items():
        print(line(name, [described(path) for path in paths], source, clean, asked.repeat), flush=True)


def sources(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """name → its files."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        if path.is_dir():
            found[path.name] = sorted(file for file in path.iterdir() if file.is_file())
        else:
            found.setdefault("files", []).append(path)
    return found


def described(path: Path) -> RawFile:
    info = path.stat()
    return RawFile(path=path.name, uri=str(path.absolute()), bytes=info.st_size, changed_ns=info.st_mtime_ns)


def line(name: str, files: list[RawFile], source: Source, clean: Clean, repeat: int) -> str:
    def least(work: Callable[[], object]) -> float:
        return min(cpu_seconds(work) for _ in range(repeat))

    with tempfile.TemporaryDirectory() as directory:
        draft = Path(directory)
        made = normalized(name, files, source, clean, draft)  # compiles what is to be compiled
        whole = least(lambda: normalized(name, files, source, clean, draft))
        spent = parts(name, files, source, clean, draft, least)
    per_100_mb = 1e8 / made.text_bytes
    head = f"{name:<16}{made.text_bytes / 1e6:>9.1f}{made.documents:>8}{made.text_bytes / 1e6 / whole:>7.1f}"
    return " ".join(
        [f"{head}{whole * per_100_mb:>7.3f}", *(f"{max(0.0, spent[part]) * per_100_mb:>11.3f}" for part in PARTS)]
    )


def cpu_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def normalized(name: str, files: list[RawFile], source: Source, clean: Clean, draft: Path) -> Normalized:
    return normalize((0, tuple(files)), name=name, source=source, clean=clean, draft=draft)


def parts(
    name: str,
    files: list[RawFile],
    source: Source,
    clean: Clean,
    draft: Path,
    least: Callable[[Callable[[], object]], float],
) -> dict[str, float]:
    """CPU seconds of each part. What is done in one go with another part is the difference."""
    batches = list(read(files, name, source))
    texts = [repair(batch.texts) for batch in batches]
    tables = [documents_of(batch, name, source, clean) for batch in batches]
    spent = {
        "decompress": least(lambda: [len(chunk) for file in files for chunk in raw.chunks(file)]),
        "read": least(lambda: [len(batch.ids) for batch in read(files, name, source)]),
        "repair": least(lambda: [repair(batch.texts) for batch in batches]),
        "length": least(lambda: [have_characters(text, clean.min_chars) for text in texts]),
        "ids": 0.0 if source.id else least(lambda: [content_ids(name, table["text"]) for table in tables]),
        "documents": least(lambda: [documents_of(batch, name, source, clean) for batch in batches]),
        "row digest": least(lambda: digest(tables)),
        "write": least(lambda: written(tables, draft)),
    }
    shards = written(tables, draft)
    spent["file hash"] = least(lambda: [file_sha256(shard) for shard in shards])
    spent["parse"] = spent["read"] - spent["decompress"]
    spent["table"] = spent["documents"] - spent["repair"] - spent["length"] - spent["ids"]
    spent["parquet"] = spent["write"] - spent["row digest"] - spent["file hash"]
    return spent


def digest(tables: Iterable[pa.Table]) -> str:
    made = RowDigest(DOCUMENTS)
    for table in tables:
        made.update(table)
    return made.hexdigest()


def written(tables: Iterable[pa.Table], draft: Path) -> list[Path]:
    writer = ShardWriter(draft, "bench", DOCUMENTS)
    for table in tables:
        writer.write(table)
    return [draft / shard.path for shard in writer.close()]


if __name__ == "__main__":
    main()
