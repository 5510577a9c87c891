"""A run is judged by the exact answer of its corpus, kept, and its failure is kept with its reason."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bench.dedup.corpora import Corpus, corpus
from bench.dedup.runs import run

RECIPE = """
name: tiny
sources: {text: {files: "*"}}
lengths: {median_chars: 500, min_chars: 300, max_chars: 1k}
into: {web: 0.5, books: 0.5}
copies: {share: 0.3, kinds: {exact: {share: 1}}}
"""
FIRST_OF_EQUALS = """
import sys, pyarrow.parquet as pq
from pathlib import Path
seen, removed = set(), []
for shard in sorted(Path(sys.argv[1], "parquet").iterdir()):
    for row in pq.read_table(shard).to_pylist():
        removed += [row["id"]] * (row["text"] in seen)
        seen.add(row["text"])
Path(sys.argv[2], "removed.txt").write_text("\\n".join(removed))
"""


@dataclass(frozen=True)
class Script:
    """A system that is a few lines of Python."""

    code: str
    name: str = "script, exact"
    settings: str = ""
    at_most: int = 10**9
    version: str = "1"
    digest: str = "0123"

    def command(self, home: Path, corpus: Corpus, work: Path) -> list[str]:
        return [sys.executable, "-c", self.code, str(corpus.path.absolute()), str(work.absolute())]

    def removed(self, work: Path) -> list[str]:
        return (work / "removed.txt").read_text().split()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def made(home: Path) -> Corpus:
    raw = home / "raw"
    raw.mkdir()
    for file in range(8):
        lines = [f"Paragraph {i} of file {file} has the words a{i}x{file} b{i}y{file} c{i}z{file}." for i in range(80)]
        (raw / f"{file}.txt").write_text("\n\n".join(lines))
    (home / "tiny.yaml").write_text(RECIPE)
    return corpus(home, home / "tiny.yaml", 60, raw)


def test_a_run_is_judged_by_the_exact_answer(home: Path, made: Corpus) -> None:
    figures = run(Script(FIRST_OF_EQUALS), home, made, 1)
    assert figures["score"] == {"removed": 18, "due": 18, "precision": 1.0, "recall": 1.0}


def test_a_run_that_is_there_is_not_repeated_and_other_code_is(home: Path, made: Corpus) -> None:
    assert run(Script(FIRST_OF_EQUALS), home, made, 1) == run(Script("raise SystemExit(1)"), home, made, 1)
    other = run(replace(Script("import sys; sys.exit('TypeError: broken')"), digest="4567"), home, made, 1)
    assert other["failure"] == "exit code 1: TypeError: broken"


def test_an_id_that_the_corpus_does_not_have_is_an_error(made: Corpus) -> None:
    with pytest.raises(ValueError, match="1 removed ids are not in"):
        made.score(["web/b00000001"])
