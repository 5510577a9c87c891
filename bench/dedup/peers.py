"""The peers, each with its script in peers/ and its pinned packages in a requirements file beside it.

`python SCRIPT CORPUS OUT …` reads CORPUS/parquet/*.parquet, writes what stays in the peer's own way, and
OUT/removed.txt, one id a line. Libraries that only say what must go get it written as Parquet by peers/kept.py.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from bench.dedup.corpora import Corpus
from bench.dedup.environments import environment

HERE = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Peer:
    """`script` and `requirements` are names in peers/. `at_most`: documents that it can do in minutes."""

    name: str
    package: str
    script: str
    arguments: tuple[str, ...]
    settings: str
    at_most: int = 10**9
    by_words: bool = True

    @property
    def requirements(self) -> Path:
        return HERE / f"{self.package}.txt"

    @property
    def version(self) -> str:
        pinned = re.search(
            rf"^{re.escape(self.package)}(?:\[.*\])?==(\S+)", self.requirements.read_text(), re.MULTILINE
        )
        assert pinned is not None, f"{self.requirements} does not pin {self.package}"
        return pinned[1]

    @property
    def digest(self) -> str:
        """Of everything of ours that a run depends on."""
        parts = [
            (HERE / self.script).read_bytes(),
            (HERE / "kept.py").read_bytes(),
            self.requirements.read_bytes(),
            repr(self.arguments).encode(),
        ]
        return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]

    def command(self, home: Path, corpus: Corpus, work: Path) -> list[str]:
        """What is measured, writing to the directory `work`. Raises Unavailable if it cannot be installed."""
        python = environment(home, self.package, self.requirements)
        paths = [python, HERE / self.script, corpus.path, work]
        return [*(str(path.absolute()) for path in paths), *self.arguments]

    def removed(self, work: Path) -> list[str]:
        """The ids that a run removed."""
        return (work / "removed.txt").read_text().splitlines()


PROCESSES = "2"
PEERS = (
    Peer("rensa", "rensa", "rensa_rminhash.py", (), "R-MinHash, 16 × 8, sketch check; 1 process"),
    Peer(
        "datasketch",
        "datasketch",
        "datasketch_lsh.py",
        (PROCESSES,),
        "bulk, affine32, xxHash, 16 × 8, sketch check; 2 processes",
    ),
    Peer("text-dedup", "text-dedup", "text_dedup_minhash.py", (PROCESSES,), "9 × 13, no check; 2 processes", 100_000),
    Peer(
        "text-dedup, checked",
        "text-dedup",
        "text_dedup_minhash.py",
        (PROCESSES, "checked"),
        "9 × 13, exact check of all pairs; 2 processes",
        25_000,
    ),
    Peer(
        "datatrove", "datatrove", "datatrove_minhash.py", (PROCESSES, "14", "8"), "14 × 8 (default); 2 workers", 25_000
    ),
    Peer("datatrove, 9 × 13", "datatrove", "datatrove_minhash.py", (PROCESSES, "9", "13"), "9 × 13; 2 workers", 25_000),
)
