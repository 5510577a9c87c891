"""rensa: `RMinHashDeduplicator.add_pairs` over full-set R-MinHash, as its README shows, in one process.

It takes token lists from Python; the rest is Rust. With its default of 8 bands it misses a fifth of what must go; 16
cost nothing and find more. The "rho" pipeline of its headline is no Jaccard estimator and is not used.
"""

from __future__ import annotations

import string
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from kept import write_kept
from rensa import RMinHashDeduplicator

PERMUTATIONS, THRESHOLD, BANDS = 128, 0.8, 16
PUNCTUATION = str.maketrans("", "", string.punctuation)


def main(corpus: Path, out: Path) -> None:
    dedup = RMinHashDeduplicator(threshold=THRESHOLD, num_perm=PERMUTATIONS, use_lsh=True, num_bands=BANDS)
    removed: list[str] = []
    for shard in sorted((corpus / "parquet").iterdir()):
        table = pq.read_table(shard, columns=["id", "text"])
        ids = table["id"].to_pylist()
        kept = dedup.add_pairs(zip(ids, shingles(table["text"].to_pylist()), strict=True))
        removed += [name for name, stays in zip(ids, kept, strict=True) if not stays]
    write_kept(corpus, out, removed)


def shingles(texts: list[str]) -> Iterator[list[str]]:
    for text in texts:
        words = text.lower().translate(PUNCTUATION).split()
        yield list(map(" ".join, zip(words, words[1:], words[2:], words[3:], words[4:])))  # noqa: B905


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
