"""How fast one core makes signatures of raw text, and what the steps take by themselves.

    python bench/kernel.py FILE|DIR… [--unit char|word] [--ngram N] [--permutations D] [--repeats R] [--limit-mb M]

reads documents (.jsonl, .parquet or plain text, also .zst and .gz; a directory is one corpus) into memory and prints,
for each argument, MB of raw UTF-8 text per second of CPU time, the median of R runs:

    clean       raw texts → cleaned texts
    hash        cleaned texts → one hash per shingle
    sets        raw texts → sets of shingle hashes
    sketch      raw texts → signature, hash of the text, counts: all that the `sign` stage stores

and how long a new process takes until its kernels are loaded, of which `imports` is NumPy and Arrow. CPU time of a
core that is shared, or that changes its clock, is not the same from run to run: compare ratios.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.compute as pc

from dataproc.dedup.cleaning import clean_all
from dataproc.dedup.minhash import sketch
from dataproc.dedup.shingles import Shingling, shingle_hashes, shingle_sets
from dataproc.raw import RawFile, records

STARTS = {
    "imports": "import numpy, pyarrow.compute",
    "and kernels": "from dataproc.dedup import minhash; minhash.warm()",
}


def main() -> None:
    parser = argparse.ArgumentParser(description="MB of raw text per second and core of the MinHash kernel")
    parser.add_argument("corpora", nargs="+", type=Path, metavar="FILE|DIR")
    parser.add_argument("--unit", choices=["char", "word"], default="char")
    parser.add_argument("--ngram", type=int, help="default: 13 characters or 5 words")
    parser.add_argument("--permutations", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit-mb", type=float, default=50, help="raw text per corpus")
    parser.add_argument("--field", default="text", help="of records; default: text")
    args = parser.parse_args()
    shingling = Shingling(args.unit, args.ngram or (13 if args.unit == "char" else 5))
    print(f"{shingling.unit} {shingling.n}-grams, {args.permutations} permutations, median of {args.repeats} runs")
    for name, script in STARTS.items():
        print(f"{name:>12} {median(seconds_of_process(script) for _ in range(args.repeats)):8.3f} CPU s")
    for corpus in args.corpora:
        texts = read(corpus, args.field, int(args.limit_mb * 1e6))
        report(corpus.name, texts, shingling, args.permutations, args.repeats)


def report(name: str, texts: pa.Array, shingling: Shingling, permutations: int, repeats: int) -> None:
    cleaned = clean_all(texts)
    steps: dict[str, Callable[[], object]] = {
        "clean": lambda: clean_all(texts),
        "hash": lambda: shingle_hashes(cleaned, shingling),
        "sets": lambda: shingle_sets(texts, shingling),
        "sketch": lambda: sketch(texts, shingling, permutations),
    }
    megabytes = size_of(texts) / 1e6
    print(f"{name}: {megabytes:.1f} MB in {len(texts)} documents")
    for step, run in steps.items():
        run()  # loads what it needs
        times = [seconds(run) for _ in range(repeats)]
        middle = median(times)
        spread = (max(times) - min(times)) / middle
        print(f"{step:>12} {megabytes / middle:8.0f} MB/s {1e3 * middle / megabytes:8.2f} ns/B   ± {spread / 2:.0%}")


def seconds(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return time.process_time() - start


def seconds_of_process(script: str) -> float:
    timed = f"import time\n{script}\nprint(time.process_time())"
    done = subprocess.run([sys.executable, "-c", timed], stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def size_of(texts: pa.Array) -> int:
    return int(pc.sum(pc.binary_length(texts)).as_py() or 0)


def read(corpus: Path, field: str, limit: int) -> pa.LargeStringArray:
    """Texts of a file, or of all files below a directory, up to a size."""
    texts: list[str] = []
    size = 0
    for text in documents(corpus, field):
        if size >= limit:
            break
        texts.append(text)
        size += len(text.encode())
    if not texts:
        sys.exit(f"{corpus}: no document with a string in field {field!r}; --field names another")
    return pa.array(texts, pa.large_string())


def documents(corpus: Path, field: str) -> Iterator[str]:
    files = [corpus] if corpus.is_file() else sorted(path for path in corpus.rglob("*") if path.is_file())
    for file in files:
        stat = file.stat()
        raw = RawFile(path=file.name, uri=str(file.absolute()), bytes=stat.st_size, changed_ns=stat.st_mtime_ns)
        for _, record in records(raw):
            if isinstance(record, dict) and isinstance(record.get(field), str):
                yield record[field]


if __name__ == "__main__":
    main()
