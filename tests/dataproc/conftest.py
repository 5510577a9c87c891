"""Builders of raw files, recipes and builds, and the two kinds of workers."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from dataproc.dedup.stones import NO_STONES, Stones
from dataproc.pipeline import Pipeline
from dataproc.recipe import DataRecipe
from dataproc.stage import Build
from dataproc.workers import Serial, Workers, open_workers
from manifest.artifact import Opened, open_artifact, resolve
from manifest.mixture import Mixture
from manifest.store import LocalStore

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


@dataclass(frozen=True)
class Built:
    """A build: what it printed, and its store."""

    published: list[Opened]
    store: LocalStore

    @property
    def id(self) -> str:
        return self.published[0].manifest.id

    @property
    def mixture(self) -> Mixture:
        manifest = self.published[0].manifest
        assert isinstance(manifest, Mixture)
        return manifest

    def artifact(self, kind: str, name: str) -> Opened:
        """An artifact that went into this build, or is of it. Raises KeyError."""
        found: dict[tuple[str, str], Opened] = {}
        waiting = list(self.published)
        while waiting:
            item = waiting.pop()
            if (item.manifest.kind, item.manifest.name) not in found:
                found[item.manifest.kind, item.manifest.name] = item
                inputs = [resolve(item.uri, i.uri) for i in item.manifest.inputs.values() if i.kind != "raw"]
                waiting += [open_artifact(uri) for uri in inputs]
        return found[kind, name]

    def rows(self, kind: str, name: str, stem: str = "") -> list[dict[str, Any]]:
        """The rows of an artifact's shards."""
        opened = self.artifact(kind, name)
        files = sorted(f.path for f in opened.manifest.files() if f.path.startswith(stem))
        return [row for file in files for row in pq.read_table(opened.directory / file).to_pylist()]

    def ids(self, kind: str, name: str, stem: str = "") -> set[str]:
        return {row["id"] for row in self.rows(kind, name, stem)}


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit code (-9: killed), what it printed, and how many file operations it made."""

    code: int
    stdout: str
    stderr: str
    calls: int


class Zygote:
    """Runs `dataproc` commands in processes of their own."""

    def __init__(self) -> None:
        script = Path(__file__).with_name("zygote.py")
        self.process = subprocess.Popen(
            [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, *argv: object, kill_at: int = 0) -> Outcome:
        """kill_at: the process kills itself at this file operation (rename, replace, unlink, rmdir), counted from 1."""
        return self.run_together([argv], kill_at=kill_at)[0]

    def run_together(self, commands: Sequence[Sequence[object]], *, kill_at: int = 0) -> list[Outcome]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        request = {"commands": [[str(part) for part in argv] for argv in commands], "kill_at": kill_at}
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return [Outcome(**outcome) for outcome in json.loads(self.process.stdout.readline())]


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    started = Zygote()
    yield started
    assert started.process.stdin is not None
    started.process.stdin.close()
    started.process.wait()


@pytest.fixture(scope="session")
def ray_workers() -> Iterator[Workers]:
    """The one Ray of the test session, with two workers."""
    with open_workers("local:2") as workers:
        yield workers


@pytest.fixture(params=["serial", "ray"])
def workers(request: pytest.FixtureRequest) -> Workers:
    return Serial() if request.param == "serial" else request.getfixturevalue("ray_workers")


@pytest.fixture(scope="session")
def write_jsonl() -> Callable[[Path, Iterable[Mapping[str, Any]]], Path]:
    def write(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def recipe() -> Callable[..., DataRecipe]:
    """A recipe over the sources `a` and `b` (or others), with nothing filtered and nothing held out."""

    def make(**overrides: Any) -> DataRecipe:
        sources = overrides.pop("sources", {"a": {"files": "a/*"}, "b": {"files": "b/*"}})
        fields: dict[str, Any] = {
            "name": "small",
            "sources": sources,
            "clean": {"min_chars": 0},
            "dedup": {"scope": "none"},
            "holdout": {"fraction": 0},
            "tokenizer": {"train": {"vocab_size": 300}},
            "block_tokens": 16,
            "phases": {"only": {"epochs": dict.fromkeys(sources, 1)}},
        }
        return DataRecipe.model_validate({**fields, **overrides})

    return make


@pytest.fixture(scope="session")
def build() -> Callable[..., Built]:
    def run(
        recipe: DataRecipe,
        raw: Path,
        store: Path,
        workers: Workers | None = None,
        *,
        until: str = "mixtures",
        dry: bool = False,
        without: Stones = NO_STONES,
    ) -> Built:
        local = LocalStore(store)
        made = Pipeline(recipe, str(raw), Build(local, workers or Serial(), dry=dry), until, without).run()
        return Built([item for item in made if isinstance(item, Opened)], local)

    return run


@pytest.fixture(scope="session")
def words() -> Callable[[int, int], list[str]]:
    """(seed, count) → random words, of which two seeds share next to no run of two."""

    def make(seed: int, count: int) -> list[str]:
        rng = random.Random(seed)
        return ["".join(rng.choices(SYLLABLES, k=rng.randint(2, 4))) for _ in range(count)]

    return make


@pytest.fixture(scope="session")
def sliced(
    tmp_path_factory: pytest.TempPathFactory, write_jsonl: Any, words: Any, recipe: Any, build: Callable[..., Built]
) -> Built:
    """A mixture whose streams have several shards, are slices of a source or all of it, and of which some is held out.

    Its raw files are in `raw` beside its store; every second document of `code` names a licence.
    """
    place = tmp_path_factory.mktemp("sliced")
    for seed, source in enumerate(("code", "web"), 1):
        for part in range(2):
            records = [
                {
                    "id": f"{part}-{i}",
                    "text": " ".join(words(seed * 10_000 + part * 1000 + i, 20 + i % 30)) + " \u4e16\u754c",
                    **({"license": "MIT" if i % 4 == 1 else "their own"} if source == "code" and i % 2 else {}),
                }
                for i in range(60)
            ]
            write_jsonl(place / "raw" / source / f"{part}.jsonl", records)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dataproc.tokenize.SHARD_TEXT_BYTES", 4000)
        patch.setattr("dataproc.normalize.BATCH_BYTES", 2000)
        patch.setattr("dataproc.documents.SHARD_ROWS", 25)
        return build(
            recipe(
                name="sliced",
                sources={name: {"files": f"{name}/*", "id": "id"} for name in ("code", "web")},
                dedup={"scope": "global"},
                holdout={"fraction": 0.1, "max_share": 0.3},
                views={
                    "code_even": {"of": "code", "part": "even"},
                    "code_mit": {"of": "code", "where": {"license": "MIT"}},
                },
                phases={
                    "first": {"epochs": {"web": 1, "code_even": 2}},
                    "second / last": {"epochs": {"web": 0.5, "code_mit": 1}},
                },
            ),
            place / "raw",
            place / "store",
        )
