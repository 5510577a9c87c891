"""The tokenizer of a mixture, for what is done to text when it is read. The one door to `tokenizers`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer

from manifest.artifact import Opened, open_artifact, resolve
from manifest.errors import CorruptArtifact, NotAnArtifact, WrongArtifact
from manifest.identity import short
from manifest.mixture import Mixture
from manifest.record import Artifact

FILE = "tokenizer.json"


def open_tokenizer(mixture: Opened) -> Tokenizer:
    """The tokenizer that the streams of a mixture were made with. It reads special tokens in a text as plain text.

    Raises NotAnArtifact if it is gone, WrongArtifact if another one is in its place, CorruptArtifact if it is damaged.
    """
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    uri, digest = resolve(mixture.uri, manifest.tokenizer.uri), manifest.tokenizer.digest
    try:
        opened = open_artifact(uri)
    except NotAnArtifact as error:
        raise NotAnArtifact(
            f"{uri}: there is no tokenizer; mixture {manifest.name} has views that are rearranged for "
            f"fill-in-the-middle when they are read, which needs the one of digest {short(digest)}. Restore it"
        ) from error
    record = opened.manifest
    found = record.digest if isinstance(record, Artifact) else "none"
    if found != digest:
        raise WrongArtifact(
            f"{uri} has the digest {short(found)}; mixture {manifest.name} was made with the tokenizer of digest "
            f"{short(digest)}. Restore it, or build the mixture again"
        )
    assert isinstance(record, Artifact)
    return _load(opened.directory / FILE, {shard.path: shard.sha256 for shard in record.shards})


def _load(file: Path, sha256: Mapping[str, str]) -> Tokenizer:
    if file.name not in sha256:
        raise WrongArtifact(f"{file.parent} has no {file.name}; build the mixture with a tokenizer that has one")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256[file.name]:
        raise CorruptArtifact(f"{file} is not the file that its manifest names; restore it")
    tokenizer = Tokenizer.from_buffer(content)
    tokenizer.no_truncation()  # a tokenizer.json may carry the length of the model that it came with
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer
