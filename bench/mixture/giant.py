"""A mixture of 10¹² tokens in 10⁹ documents, as files that are mostly holes: what opening, seeking and tracing cost.

    make       <home>/mixture/giant: seven streams, shards of 256 MB of text as `dataproc build` cuts them
    measure    one process: opens it, seeks to steps, asks which documents they read and which steps read a document

Every document is DOCUMENT tokens long and ids lie where their hash says, so what a file would hold at any place is
known; it is written where a question will look, before the clock starts. All else is holes, which read as zeros.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

TOKENS, DOCUMENT = 10**12, 1000
SHARD_TOKENS = 64_000_000  # 256 MB of text (dataproc.tokenize.SHARD_TEXT_BYTES) at four bytes a token
BLOCK, SEQ_LEN, BATCH = 8192, 2048, 64
SHARES = {
    "commoncrawl": 0.522, "c4": 0.267, "github": 0.052, "books": 0.042, "arxiv": 0.046, "wikipedia": 0.038,
    "stackexchange": 0.033,
}  # fmt: skip
PHASES = {"main": (0.9, {}), "end": (0.1, {"wikipedia": 0.3, "books": 0.3})}
"""The share of the tokens that a phase draws, and the sources that it favours."""
STEPS, DOCUMENTS = 40, 400  # how many are asked about
ID_BYTES = 32
DOCUMENTS_PER_SHARD = SHARD_TOKENS // DOCUMENT


@dataclass(frozen=True)
class Sparse:
    """A shard's files by what they would hold."""

    stem: Path
    source: str
    number: int
    of: int

    def create(self) -> None:
        """Sizes, headers and ends; the rest is holes."""
        n = DOCUMENTS_PER_SHARD
        self._file(".bin").write_bytes(b"")
        os.truncate(self._file(".bin"), SHARD_TOKENS * 2)
        with self._file(".idx").open("wb") as idx:
            idx.write(b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, 8, n, n + 1))
            idx.truncate(34 + 20 * n + 8)
        with self._file(".ids").open("wb") as ids:
            ids.write(b"WNWIDS\x00\x01" + struct.pack("<Q", n))
            ids.truncate(16 + 8 * (2 * n + 1) + n * ID_BYTES)
        self._write(".idx", 34 + 4 * (n - 1), "<i", DOCUMENT)
        self.pointer(n - 1)
        self.hash(0, self._hash(0))
        self.hash(n - 1, self._hash(n - 1))
        self.offset(n)

    def pointer(self, index: int) -> None:
        self._write(".idx", 34 + 4 * DOCUMENTS_PER_SHARD + 8 * index, "<q", index * DOCUMENT * 2)

    def hash(self, index: int, value: int) -> None:
        self._write(".ids", 16 + 8 * index, "<Q", value)

    def offset(self, index: int) -> None:
        self._write(".ids", 16 + 8 * (DOCUMENTS_PER_SHARD + index), "<Q", index * ID_BYTES)

    def identify(self, index: int, document_id: str | None = None) -> None:
        """Writes the id of a document; its own by default."""
        name = document_id or f"{self.source}/".ljust(ID_BYTES - 12, "0") + f"{self.number * 10**6 + index:012d}"
        self.offset(index)
        self.offset(index + 1)
        with self._file(".ids").open("r+b") as ids:
            ids.seek(16 + 8 * (2 * DOCUMENTS_PER_SHARD + 1) + index * ID_BYTES)
            ids.write(name.encode())

    def _hash(self, index: int) -> int:
        """The middle of the index-th of equal parts of the shard's range of hashes."""
        return (2 * (self.number * DOCUMENTS_PER_SHARD + index) + 1) * 2**63 // (self.of * DOCUMENTS_PER_SHARD)

    def fill_tokens(self, start: int, stop: int) -> None:
        """What is looked at to find the documents of tokens [start, stop)."""
        _search(DOCUMENTS_PER_SHARD, lambda index: index * DOCUMENT > start, self.pointer)
        for index in range(start // DOCUMENT, min((stop - 1) // DOCUMENT + 2, DOCUMENTS_PER_SHARD)):
            self.pointer(index)
            self.identify(index)

    def fill_id(self, document_id: str, key: int) -> int:
        """What is looked at to find a document; returns its index."""
        at = key * self.of * DOCUMENTS_PER_SHARD // 2**64 - self.number * DOCUMENTS_PER_SHARD
        _search(
            DOCUMENTS_PER_SHARD,
            lambda index: index >= at,
            lambda index: self.hash(index, key if index == at else self._hash(index)),
        )
        self.hash(at, key)
        self.identify(at, document_id)
        self.pointer(at)
        if at + 1 < DOCUMENTS_PER_SHARD:
            self.pointer(at + 1)
        return at

    def _write(self, suffix: str, at: int, form: str, value: int) -> None:
        with self._file(suffix).open("r+b") as file:
            file.seek(at)
            file.write(struct.pack(form, value))

    def _file(self, suffix: str) -> Path:
        return self.stem.with_name(self.stem.name + suffix)


def _search(size: int, beyond: Callable[[int], bool], touch: Callable[[int], None]) -> None:
    """Touches every place that a binary search over range(size) looks at."""
    low, high = 0, size
    while low < high:
        middle = (low + high) // 2
        touch(middle)
        if beyond(middle):
            high = middle
        else:
            low = middle + 1
    touch(min(low, size - 1))


def shards_of(source: str) -> int:
    return round(TOKENS * SHARES[source] / SHARD_TOKENS)


def make(home: Path) -> None:
    """Publishes the streams and the mixture, if they are not there."""
    from manifest.mixture import Mixture, Phase, Tokenizer, View
    from manifest.store import LocalStore

    root = home / "mixture" / "giant"
    if (root / "mixtures" / "giant" / "manifest.json").is_file():
        return
    shutil.rmtree(root, ignore_errors=True)
    store = LocalStore(root)
    streams = {source: _stream(store, source) for source in SHARES}
    phases = []
    for name, (share, favoured) in PHASES.items():
        shares = {**SHARES, **favoured}
        draw = {s: round(TOKENS * share * w / sum(shares.values()) / BLOCK) for s, w in shares.items()}
        phases.append(Phase(name=name, draw=draw))
    record = Mixture(
        name="giant",
        tokenizer=Tokenizer(uri="../../tokenizer", digest="0" * 64, vocab_size=50_000, end_of_text=0),
        block_tokens=BLOCK,
        streams=streams,
        views={source: View(of=source, stream=source) for source in SHARES},
        phases=tuple(phases),
    )
    with store.draft("mixtures/giant") as draft:
        store.publish("mixtures/giant", draft, record)


def _stream(store: Any, source: str) -> Any:
    from manifest.identity import sha256
    from manifest.mixture import Stream, TokenShard
    from manifest.record import Artifact, FileEntry, Shard, digest_of_shards

    count, files = shards_of(source), []
    directory = store.root / "tokens" / source
    directory.mkdir(parents=True)
    for number in range(count):
        stem = directory / f"tokens-{number:05d}"
        Sparse(stem, source, number, count).create()
        for suffix in (".bin", ".idx", ".ids"):
            file = stem.with_suffix(suffix)
            digest = sha256(f"{source}{file.name}".encode())
            size = file.stat().st_size
            files.append(Shard(path=file.name, bytes=size, sha256=digest, rows=DOCUMENTS_PER_SHARD, digest=digest))
    shards = tuple(files)
    record = Artifact(
        kind="tokens",
        name=source,
        stage="tokenize/1",
        fingerprint="0" * 64,
        digest=digest_of_shards(shards),
        shards=shards,
    ).identified()
    (directory / "manifest.json").write_bytes(record.to_json())  # not through publish, which would sync 47,000 files
    entries = [FileEntry(path=s.path, bytes=s.bytes, sha256=s.sha256) for s in shards]
    return Stream(
        uri=f"../../tokens/{source}",
        id=record.id,
        tokens=count * SHARD_TOKENS,
        documents=count * DOCUMENTS_PER_SHARD,
        blocks=-(-count * SHARD_TOKENS // BLOCK),
        shards=tuple(
            TokenShard(bin=b, idx=i, ids=d, tokens=SHARD_TOKENS, documents=DOCUMENTS_PER_SHARD)
            for b, i, d in zip(entries[::3], entries[1::3], entries[2::3], strict=True)
        ),
    )


def measure(home: Path, seed: int) -> dict[str, float]:
    """Everything, in this process, which should be fresh.

    Seconds of opening and seeking are wall time, those of tracing CPU time; memory is the most it held so far.
    """
    began = time.perf_counter()
    from bench.mixture.loading import timeline_of
    from manifest.artifact import open_artifact
    from trainer.data.loader import step_source

    imported, cpu = time.perf_counter(), time.process_time()
    base_mb = _resident_mb()
    opened = open_artifact(str(home / "mixture" / "giant" / "mixtures" / "giant"), kind="mixture")
    timeline = timeline_of(opened, BATCH, SEQ_LEN)
    source = step_source(opened, timeline, rank=0, world=1)
    open_s, open_cpu_s = time.perf_counter() - imported, time.process_time() - cpu
    total = timeline.total_steps
    chosen = [(seed + 1 + 2654435761 * i) % total for i in range(STEPS)]
    seeks = [_seconds(partial(source.read, chosen[0]), time.perf_counter)]
    opened_mb = _resident_mb()
    seeks += [_seconds(partial(source.read, step), time.perf_counter) for step in chosen[1:]]
    found = {
        "import_s": imported - began,
        "open_s": open_s,
        "open_cpu_s": open_cpu_s,
        "seek_s": max(seeks),
        "open_and_seek_s": open_s + max(seeks),
        "base_mb": base_mb,
        "opened_mb": opened_mb,
        "sought_mb": _resident_mb(),
    }
    streams = source.reader.streams
    return {**found, **_trace(home, timeline, streams, chosen, seed), "traced_mb": _resident_mb(), "steps": total}


def _trace(home: Path, timeline: Any, streams: Any, steps: list[int], seed: int) -> dict[str, float]:
    """Microseconds per window of step → documents, and per occurrence of document → steps, first and again."""
    from manifest.exposure import documents_of_step

    shards = _shards(home)
    for step in steps:
        for view, start in _windows(timeline, step):
            count = len(shards[view])
            number, first = divmod(start % (count * SHARD_TOKENS), SHARD_TOKENS)
            stop = min(first + SEQ_LEN, SHARD_TOKENS)
            shards[view][number].fill_tokens(first, stop)
            if first + SEQ_LEN > SHARD_TOKENS:
                shards[view][(number + 1) % count].fill_tokens(0, first + SEQ_LEN - SHARD_TOKENS)
    answers: list[Any] = []
    first_s = _seconds(lambda: answers.extend(w for s in steps for w in documents_of_step(timeline, streams, s)))
    again_s = min(_seconds(lambda: [list(documents_of_step(timeline, streams, s)) for s in steps]) for _ in range(3))
    windows = len(answers)
    assert all(sum(span.stop - span.start for span in w.spans) == SEQ_LEN for w in answers), "a window is all documents"
    asked = _documents(shards, seed)
    found, first_inverse_s, inverse_s, find_s = _inverse(timeline, streams, asked)
    return {
        "windows": windows,
        "window_us": again_s / windows * 1e6,
        "window_first_us": first_s / windows * 1e6,
        "documents_per_window": sum(len(w.spans) for w in answers) / windows,
        "occurrences": found,
        "occurrence_us": inverse_s / found * 1e6,
        "occurrence_first_us": first_inverse_s / found * 1e6,
        "find_us": find_s / len(asked) * 1e6,
    }


def _inverse(timeline: Any, streams: Any, asked: list[tuple[str, str]]) -> tuple[int, float, float, float]:
    """How many windows read the documents, seconds to say which (the first time, and again) and to find the ids."""
    from manifest.exposure import exposures_of_places

    ids = dict(zip(SHARES, _ids(timeline), strict=True))
    places: list[Any] = []

    def find() -> None:
        places[:] = [(ids[source], [streams[ids[source]].find(document)]) for source, document in asked]

    def trace() -> list[Any]:
        return [e for stream, spans in places for e in exposures_of_places(timeline, stream, streams[stream], spans)]

    find()
    found: list[Any] = []
    first_s = _seconds(lambda: found.extend(trace()))
    return len(found), first_s, min(_seconds(trace) for _ in range(3)), min(_seconds(find) for _ in range(3))


def _ids(timeline: Any) -> list[str]:
    """The stream that each view reads, in the order of SHARES."""
    drawn = {draw.view: draw.stream for segment in timeline.order.segments for draw in segment.draws}
    return [drawn[source] for source in SHARES]


def _documents(shards: dict[str, list[Sparse]], seed: int) -> list[tuple[str, str]]:
    from manifest.identity import hash64

    asked = []
    for number in range(DOCUMENTS):
        source = list(SHARES)[number % len(SHARES)]
        name = f"{source}/".ljust(ID_BYTES - 12, "q") + f"{seed * 10**6 + number:012d}"
        key = hash64(name)
        shards[source][key * len(shards[source]) >> 64].fill_id(name, key)
        asked.append((source, name))
    return asked


def _windows(timeline: Any, step: int) -> Iterator[tuple[str, int]]:
    from trainer.data.windows import windows

    whole = timeline.step(step)
    return ((w.view, w.start) for w in windows(timeline, whole.segment, range(whole.first, whole.stop)))


def _shards(home: Path) -> dict[str, list[Sparse]]:
    tokens = home / "mixture" / "giant" / "tokens"
    return {
        s: [Sparse(tokens / s / f"tokens-{n:05d}", s, n, shards_of(s)) for n in range(shards_of(s))] for s in SHARES
    }


def _seconds(call: Callable[[], object], clock: Callable[[], float] = time.process_time) -> float:
    """CPU seconds, or those of another clock."""
    began = clock()
    call()
    return clock() - began


def _resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(Path(sys.argv[2]))
        print("{}")
    else:
        print(json.dumps(measure(Path(sys.argv[2]), int(sys.argv[3]))))
