"""What a mixture was made from, as far as an export needs it: each must be there and be what it was.

mixture ─► tokens (per stream) ─► deduped        mixture ─► tokenizer, held-out documents
"""

from __future__ import annotations

from manifest.artifact import Opened, open_artifact, read_manifest, resolve
from manifest.errors import NotAnArtifact, WrongArtifact
from manifest.identity import short
from manifest.mixture import Mixture
from manifest.record import Reference

BUILD_AGAIN = "restore it, or run the same dataproc build again"
TEXT_IS_GONE = (
    "the tokens alone do not give the text back: restore it, or run the same dataproc build again over the raw files, "
    "which makes what is missing; --format megatron needs the tokens only"
)


def open_mixture(uri: str) -> tuple[Opened, Mixture]:
    """The mixture at a path. Raises ArtifactError if there is none."""
    opened = open_artifact(uri, "mixture")
    assert isinstance(opened.manifest, Mixture)
    return opened, opened.manifest


def stream_tokens(mixture: Opened) -> dict[str, Opened]:
    """The tokens of each stream. Raises ArtifactError."""
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    return {
        name: follow(mixture, Reference(kind="tokens", name=name, id=stream.id, uri=stream.uri), BUILD_AGAIN)
        for name, stream in manifest.streams.items()
    }


def tokenizer_of(mixture: Opened) -> Opened:
    """Its tokenizer. Raises ArtifactError."""
    reference = mixture.manifest.inputs.get("tokenizer")
    if reference is None:
        raise WrongArtifact(f"{mixture.uri} names no tokenizer that it was made with; build the mixture again")
    return follow(mixture, reference, BUILD_AGAIN)


def documents_behind(tokens: Opened) -> list[Opened]:
    """The deduplicated documents that a stream's tokens were made from, and perhaps more. Raises ArtifactError."""
    found = [reference for reference in tokens.manifest.inputs.values() if reference.kind == "deduped"]
    if not found:
        raise WrongArtifact(
            f"{tokens.uri} (tokens/{tokens.manifest.name}) names no deduplicated documents that it was made from, so "
            "its text cannot be found; build the mixture again with this Winnow"
        )
    return [follow(tokens, reference, TEXT_IS_GONE) for reference in found]


def heldout_of(mixture: Opened) -> Opened | None:
    """The held-out documents; None if nothing was held out. Raises ArtifactError."""
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    return None if manifest.heldout is None else follow(mixture, manifest.heldout, TEXT_IS_GONE)


def follow(base: Opened, reference: Reference, advice: str) -> Opened:
    """The artifact that an input means, with its files. Raises ArtifactError, with advice if it is not there."""
    uri = resolve(base.uri, reference.uri)
    lost = (
        f"{base.manifest.kind}/{base.manifest.name} at {base.uri} was made from {reference.kind}/{reference.name} "
        f"{short(reference.id)}, but at {uri} there is"
    )
    try:
        _, manifest = read_manifest(uri)
    except NotAnArtifact as error:
        raise NotAnArtifact(f"{lost} none; {advice}") from error
    if manifest.id != reference.id:
        raise WrongArtifact(f"{lost} {short(manifest.id)} now; {advice}")
    return open_artifact(uri)
