"""The manifest of an artifact: what it is, what made it, from what, with which content.

`manifest.json` is written last; without it the directory does not exist. Its `id` is its content (see
identity.py): the same recipe over the same raw content has the same ids wherever and whenever it is built.
"""

from __future__ import annotations

import contextlib
import gc
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, ClassVar, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from manifest.errors import CorruptArtifact, UnknownVersion
from manifest.identity import NOT_IDENTITY_ANYWHERE, digest_of, identity, identity_as_written, short

MANIFEST = "manifest.json"
_SAID_ID = re.compile(rb'\{\s*"kind": "[\w-]+",\s*"version": 1,\s*"id": "([0-9a-f]{64})"')
VERSION: Final = 1


class Model(BaseModel):
    """A record: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Reference(Model):
    """Something an artifact was made from. `uri` is relative to the artifact's own directory, or absolute.

    For a raw file `kind` is "raw" and `id` the SHA-256 of its bytes.
    """

    kind: str
    name: str
    id: str
    uri: str


class FileEntry(Model):
    """One file of an artifact, with what is needed to see that it is whole."""

    path: str
    bytes: int
    sha256: str


class Shard(FileEntry):
    """A file of rows. `digest` is over the canonical rows: another compression or writer keeps it."""

    rows: int
    digest: str


class Producer(Model):
    """Who made it, on what, and what it cost. Never part of an identity."""

    program: str
    version: str
    libraries: dict[str, str] = {}
    measured: dict[str, float | int | str] = {}


class Manifest(Model):
    """What every kind of manifest has."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = NOT_IDENTITY_ANYWHERE

    kind: str
    version: Literal[1] = VERSION
    id: str = ""
    name: str
    inputs: dict[str, Reference] = {}
    config: dict[str, Any] = {}
    producer: Producer | None = None
    created: str = ""

    def files(self) -> Iterator[FileEntry]:
        """Every file that belongs to the artifact, besides the manifest itself."""
        return iter(())

    def identified(self) -> Self:
        """This manifest with its id. Raises as `canonical_json` does."""
        return self.model_copy(update={"id": self.content_id()})

    def content_id(self) -> str:
        """The id that the content gives, whatever the field `id` says."""
        # Not mode="json": it would make lists of sets and strings of bytes, and hide what has no stable form.
        return identity(self.model_dump(mode="python"), self.NOT_IDENTITY)

    def to_json(self) -> bytes:
        """The bytes of manifest.json: indented, in declared order."""
        return (self.model_dump_json(indent=2) + "\n").encode("utf-8")


class Artifact(Manifest):
    """The manifest of a stage's output.

    fingerprint: what was asked (stage, its version, resolved config, ids of the inputs, versions of the
    libraries that shape the output). It names the directory. digest: what came out, over canonical rows.
    """

    # A Parquet file's bytes depend on its writer; its rows are in `digest`.
    NOT_IDENTITY: ClassVar[frozenset[str]] = NOT_IDENTITY_ANYWHERE | {"bytes", "sha256"}

    stage: str
    fingerprint: str
    digest: str
    shards: tuple[Shard, ...] = ()
    summary: dict[str, Any] = {}

    def files(self) -> Iterator[FileEntry]:
        return iter(self.shards)


def fingerprint(stage: str, *, config: dict[str, Any], inputs: dict[str, Reference], libraries: dict[str, str]) -> str:
    """What is asked of a stage, as a digest. Raises as `canonical_json` does."""
    ids = {name: reference.id for name, reference in inputs.items()}
    return digest_of({"stage": stage, "config": config, "inputs": ids, "libraries": libraries})


def digest_of_shards(shards: tuple[Shard, ...]) -> str:
    """The digest of an artifact: over the names, row counts and digests of its shards, in order of name."""
    return digest_of([[shard.path, shard.rows, shard.digest] for shard in sorted(shards, key=lambda s: s.path)])


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def parse(data: bytes, where: str) -> Manifest:
    """manifest.json → the record of its kind.

    Raises:
        CorruptArtifact: not JSON, a field is missing or wrong, or the id is not the content's.
        UnknownVersion: another version of the contract.
    """
    with _no_search_for_cycles():
        return _parsed(data, where)


@contextlib.contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Python looks for cycles to free whenever many objects were made. A mixture of 16,000 shards is 60,000 records
    and as many dictionaries, none of them in a cycle; looking at them again and again takes as long as reading them.
    """
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()


def _parsed(data: bytes, where: str) -> Manifest:
    from manifest.kinds import KINDS

    try:
        fields = from_json(data)
    except ValueError as error:
        raise CorruptArtifact(f"{where} is not JSON ({error}); delete the directory and build it again") from error
    found = fields.get("version") if isinstance(fields, dict) else None
    if found != VERSION:
        raise UnknownVersion(
            f"{where} has version {found!r}; this Winnow reads version {VERSION}. "
            "Use the Winnow that made it, or build it again"
        )
    model = KINDS.get(str(fields.get("kind")), Artifact)
    intact = _says_its_content(fields, model)
    del fields  # as large as the record: of a mixture with many shards, 100 MB
    try:
        record = model.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise CorruptArtifact(
            f"{where}: field {field}: {first['msg']}; delete the directory and build it again"
        ) from error
    if not intact and record.id != record.content_id():
        raise CorruptArtifact(
            f"{where} says id {short(record.id)}, but its content has id {short(record.content_id())}: it "
            "was changed after publishing. Restore it, or delete the directory and build it again"
        )
    return record


def _says_its_content(fields: dict[str, Any], model: type[Manifest]) -> bool:
    """Whether the id is that of the fields as they are written. It may be the record's all the same: a manifest of
    before a field was added lacks that field's default.
    """
    try:
        return bool(fields.get("id") == identity_as_written(fields, model.NOT_IDENTITY))
    except (TypeError, ValueError):
        return False


def said_id(data: bytes) -> str | None:
    """The id at the head of a manifest.json, not compared with its content; None if it does not stand there."""
    found = _SAID_ID.match(data[:4096])
    return found[1].decode() if found else None
