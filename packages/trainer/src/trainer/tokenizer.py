"""The tokenizer of a mixture, for what is done to text when it is read. The one door to `tokenizers`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from tokenizers import Tokenizer

from manifest.added import ADDED, Added
from manifest.artifact import Opened, open_artifact, resolve
from manifest.errors import CorruptArtifact, NotAnArtifact, RecipeError, WrongArtifact
from manifest.identity import short
from manifest.mixture import Mixture
from manifest.record import Artifact
from trainer.recipe import TrainRecipe
from trainer.trainable import Trainable

FILE = "tokenizer.json"


def open_tokenizer(mixture: Opened) -> Tokenizer:
    """The tokenizer that the streams of a mixture were made with. It reads special tokens in a text as plain text.

    Raises NotAnArtifact if it is gone, WrongArtifact if another one is in its place, CorruptArtifact if it is damaged.
    """
    opened = find_tokenizer(
        mixture,
        why="has views that are rearranged for fill-in-the-middle when they are read, which needs",
        advice="Restore it",
    )
    record = opened.manifest
    assert isinstance(record, Artifact)
    return load_tokenizer(opened.directory / FILE, {shard.path: shard.sha256 for shard in record.shards})


def find_tokenizer(mixture: Opened, *, why: str, advice: str) -> Opened:
    """The artifact of a mixture's tokenizer. why, advice: what the error says if it is gone.

    Raises NotAnArtifact if it is gone, WrongArtifact if another one is in its place.
    """
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    uri, digest = resolve(mixture.uri, manifest.tokenizer.uri), manifest.tokenizer.digest
    try:
        opened = open_artifact(uri)
    except NotAnArtifact as error:
        raise NotAnArtifact(
            f"{uri}: there is no tokenizer; mixture {manifest.name} {why} the one of digest {short(digest)}. {advice}"
        ) from error
    record = opened.manifest
    found = record.digest if isinstance(record, Artifact) else "none"
    if found != digest:
        raise WrongArtifact(
            f"{uri} has the digest {short(found)}; mixture {manifest.name} was made with the tokenizer of digest "
            f"{short(digest)}. Restore it, or build the mixture again"
        )
    return opened


def with_first_row(recipe: TrainRecipe, mixture: Opened, where: str) -> TrainRecipe:
    """The recipe, its `trainable: new_rows` with the first id that was added to the mixture's tokenizer.

    Raises RecipeError, naming `where` (the recipe's file), if nothing was added at the end; ArtifactError if the
    tokenizer is not what it was.
    """
    if not any(phase.trainable.named == "new_rows" for phase in recipe.phases.values()):
        return recipe
    resolved = Trainable(new_rows=_first_added(mixture, where))
    phases = {
        name: phase.model_copy(update={"trainable": resolved}) if phase.trainable.named == "new_rows" else phase
        for name, phase in recipe.phases.items()
    }
    return recipe.model_copy(update={"phases": phases})


def _first_added(mixture: Opened, where: str) -> int:
    opened = find_tokenizer(mixture, why="is learned in its new rows, which are named by", advice="Restore it")
    file = opened.directory / ADDED
    advice = "give the first id as `trainable: {new_rows: ID}`, or train `embeddings`"
    if not file.is_file():
        raise RecipeError(
            f"{where}: found `trainable: new_rows`, and the tokenizer of mixture {mixture.manifest.name} was not "
            f"extended ({opened.uri} has no {ADDED}); {advice}"
        )
    added = Added.model_validate_json(file.read_bytes())
    if added.replaced or not added.tokens:
        raise RecipeError(
            f"{where}: found `trainable: new_rows`, and the new tokens of mixture {mixture.manifest.name} took the "
            "places of others, so they are no block of rows; train `embeddings`"
        )
    return min(token.id for token in added.tokens)


def load_tokenizer(file: Path, sha256: Mapping[str, str]) -> Tokenizer:
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
