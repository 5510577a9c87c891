"""datasketch: `MinHash.bulk` in worker processes, then `MinHashLSH` in this one.

Its documentation's ways for speed and accuracy are taken: a fast hash function instead of SHA-1, lean sketches, bands
that find (16 × 8), candidates filtered by `jaccard`. Pairs are joined by union-find; the first document of each stays.
"""

from __future__ import annotations

import string
import sys
from collections.abc import Iterator
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import xxhash
from datasketch import LeanMinHash, MinHash, MinHashLSH
from kept import write_kept

PERMUTATIONS, THRESHOLD, BANDS = 128, 0.8, (16, 8)
SEED = 1
PUNCTUATION = str.maketrans("", "", string.punctuation)


def main(corpus: Path, out: Path, processes: int) -> None:
    shards = sorted((corpus / "parquet").iterdir())
    ids: list[str] = []
    index: list[LeanMinHash] = []
    lsh = MinHashLSH(num_perm=PERMUTATIONS, params=BANDS)
    root: list[int] = []
    with Pool(processes) as pool:
        for names, rows in pool.imap(sketches, shards):
            for name, values in zip(names, rows, strict=True):
                sketch = LeanMinHash(seed=SEED, hashvalues=values, scheme="affine32")
                number = len(ids)
                ids.append(name)
                index.append(sketch)
                root.append(number)
                for other in lsh.query(sketch):
                    a, b = find(root, other), find(root, number)
                    if a != b and sketch.jaccard(index[other]) >= THRESHOLD:
                        root[max(a, b)] = min(a, b)
                lsh.insert(number, sketch, check_duplication=False)
    removed = [name for number, name in enumerate(ids) if find(root, number) != number]
    write_kept(corpus, out, removed)


def sketches(shard: Path) -> tuple[list[str], np.ndarray]:
    table = pq.read_table(shard, columns=["id", "text"])
    made = MinHash.bulk(
        shingles(table["text"].to_pylist()), num_perm=PERMUTATIONS, seed=SEED, hashfunc=xxhash.xxh32_intdigest
    )
    return table["id"].to_pylist(), np.stack([sketch.hashvalues for sketch in made])


def shingles(texts: list[str]) -> Iterator[list[bytes]]:
    for text in texts:
        words = text.lower().translate(PUNCTUATION).encode().split()
        yield list(map(b" ".join, zip(words, words[1:], words[2:], words[3:], words[4:])))  # noqa: B905


def find(root: list[int], number: int) -> int:
    while root[number] != number:
        root[number] = root[root[number]]
        number = root[number]
    return number


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
