"""A builder of small artifacts: raw files, token streams, mixtures, checkpoints and reports in a store."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from manifest.artifact import relative_uri
from manifest.checkpoint import Checkpoint, Timeline
from manifest.identity import hash64
from manifest.indexed import ShardWriter, token_dtype
from manifest.mixture import Mixture, Phase, Stream, Tokenizer, TokenShard, View
from manifest.record import Artifact, FileEntry, Manifest, Reference, Shard, digest_of_shards
from manifest.report import Report
from manifest.store import Store, open_store

Documents = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Built:
    """What was published, and where."""

    uri: str
    manifest: Manifest


class Builder:
    """Publishes artifacts to a store. Inputs are earlier results or raw files, by name."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self.store, self.scratch = store, scratch

    def raw(self, name: str, text: str) -> Path:
        path = self.scratch / "raw" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def artifact(
        self, path: str, files: Mapping[str, bytes] | None = None, inputs: Mapping[str, Built | Path] | None = None
    ) -> Built:
        with self.store.draft(path) as draft:
            for name, data in (files or {"part.bin": b"rows of " + path.encode()}).items():
                (draft / name).write_bytes(data)
            shards = tuple(_shard(draft, name) for name in _files(draft))
            return self._publish(path, draft, self._stage(path, shards, inputs or {}))

    def tokens(
        self,
        name: str,
        documents: Documents,
        *,
        shards: int = 1,
        inputs: Mapping[str, Built | Path] | None = None,
    ) -> Built:
        path = f"tokens/{name}"
        with self.store.draft(path) as draft:
            _write_shards(draft, documents, shards)
            files = tuple(_shard(draft, name) for name in _files(draft))
            return self._publish(path, draft, self._stage(path, files, inputs or {}))

    def mixture(
        self,
        name: str,
        streams: Mapping[str, Built],
        phases: Mapping[str, Mapping[str, int]],
        *,
        block_tokens: int = 8,
        views: Mapping[str, str] | None = None,
    ) -> Built:
        """views: view → stream; by default every stream is its own view."""
        path = f"mixtures/{name}"
        views = views or {stream: stream for stream in streams}
        record = Mixture(
            name=name,
            tokenizer=Tokenizer(uri="../../tokenizer", digest="t" * 64, vocab_size=1000, end_of_text=0),
            block_tokens=block_tokens,
            streams={key: self._stream(path, built, block_tokens) for key, built in streams.items()},
            views={view: View(of=stream, stream=stream) for view, stream in views.items()},
            phases=tuple(Phase(name=phase, draw=dict(draw)) for phase, draw in phases.items()),
            inputs=self._references(path, streams),
        )
        with self.store.draft(path) as draft:
            return self._publish(path, draft, record)

    def checkpoint(self, run: str, step: int, timeline: Timeline, mixtures: Sequence[Built]) -> Built:
        path = f"runs/{run}/checkpoints/{step:08d}"
        with self.store.draft(path) as draft:
            record = Checkpoint(
                name=f"{run}-{step}",
                run=run,
                step=step,
                tokens=0,
                full=False,
                timeline=timeline,
                weights=(),
                inputs=self._references(path, {built.manifest.name: built for built in mixtures}),
            )
            return self._publish(path, draft, record)

    def report(self, name: str, checkpoint: Built) -> Built:
        path = f"reports/{name}"
        record = Report(name=name, scores=(), inputs=self._references(path, {"checkpoint": checkpoint}))
        with self.store.draft(path) as draft:
            return self._publish(path, draft, record)

    def _publish(self, path: str, draft: Path, record: Manifest) -> Built:
        return Built(self.store.where(path), self.store.publish(path, draft, record))

    def _stage(self, path: str, shards: tuple[Shard, ...], inputs: Mapping[str, Built | Path]) -> Artifact:
        stage, _, name = path.partition("/")
        return Artifact(
            kind=stage,
            name=name,
            stage=stage,
            fingerprint=hashlib.sha256(path.encode()).hexdigest(),
            digest=digest_of_shards(shards),
            shards=shards,
            inputs=self._references(path, inputs),
        )

    def _references(self, path: str, inputs: Mapping[str, Built | Path]) -> dict[str, Reference]:
        base = self.store.where(path)
        return {name: _reference(name, target, base) for name, target in inputs.items()}

    def _stream(self, path: str, built: Built, block_tokens: int) -> Stream:
        manifest = built.manifest
        assert isinstance(manifest, Artifact)
        entries = {
            shard.path: FileEntry(**shard.model_dump(include={"path", "bytes", "sha256"})) for shard in manifest.shards
        }
        stems = sorted(path.removesuffix(".bin") for path in entries if path.endswith(".bin"))
        tokens = sum(entries[stem + ".bin"].bytes for stem in stems) // 2
        shards = tuple(
            TokenShard(
                bin=entries[stem + ".bin"],
                idx=entries[stem + ".idx"],
                ids=entries[stem + ".ids"],
                tokens=entries[stem + ".bin"].bytes // 2,
                documents=0,
            )
            for stem in stems
        )
        return Stream(
            uri=relative_uri(built.uri, self.store.where(path)),
            id=manifest.id,
            tokens=tokens,
            documents=1,
            blocks=-(-tokens // block_tokens),
            shards=shards,
        )


def _reference(name: str, target: Built | Path, base: str) -> Reference:
    if isinstance(target, Path):
        digest = hashlib.sha256(target.read_bytes()).hexdigest()
        return Reference(kind="raw", name=name, id=digest, uri=relative_uri(str(target), base))
    return Reference(kind=target.manifest.kind, name=name, id=target.manifest.id, uri=relative_uri(target.uri, base))


def _files(draft: Path) -> list[str]:
    return sorted(path.name for path in draft.iterdir() if not path.name.startswith("."))


def _shard(draft: Path, name: str) -> Shard:
    data = (draft / name).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    return Shard(path=name, bytes=len(data), sha256=digest, rows=1, digest=digest)


def _write_shards(directory: Path, documents: Documents, shards: int = 1) -> list[Path]:
    """Token shards of documents, in order of id hash; returns their stems."""
    ordered = sorted(documents, key=lambda document: (hash64(document), document))
    stems = [directory / f"{index:05d}.of.{shards}" for index in range(shards)]
    for index, stem in enumerate(stems):
        with ShardWriter(stem, token_dtype(1000)) as writer:
            for document in ordered[len(ordered) * index // shards : len(ordered) * (index + 1) // shards]:
                writer.add(document, list(documents[document]))
    return stems


@pytest.fixture
def build(tmp_path: Path) -> Builder:
    """A builder over a local store."""
    return Builder(open_store(tmp_path / "store"), tmp_path)


@pytest.fixture(scope="session")
def builder() -> type[Builder]:
    """The builder's class, for a store of the test's own."""
    return Builder


@pytest.fixture(scope="session")
def write_shards() -> Callable[..., list[Path]]:
    """`_write_shards`, as tests cannot import from here."""
    return _write_shards
