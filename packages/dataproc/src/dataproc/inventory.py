"""The raw files of a recipe with their SHA-256, which is what makes two builds the same build.

Workers hash them. Hashes are kept in the store's cache by (URI, size, time of change), so a second build reads no raw
file that it knows.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from dataproc import progress
from dataproc.decontaminate.items import files_of
from dataproc.raw import RawFile, RawRoot, sha256_of, tasks
from dataproc.recipe import DataRecipe
from dataproc.stage import Build, start
from manifest.identity import digest_of, short
from manifest.record import Model
from manifest.store import LocalStore, write_atomic

CACHE = ".cache"
BEFORE_EVALUATIONS = ("documents", "signatures")
"""Builds that end here read no evaluation file."""
NONE: Mapping[str, Sequence[RawFile]] = {}
DRY_BYTES = 1_000_000_000
"""What a dry run hashes at most. Of a file that no build has read nothing can be re-used, unless it is a copy."""
HASHING = "hashing raw files"
"""The stage that listeners hear of."""


def inventory(recipe: DataRecipe, raw: str, build: Build) -> dict[str, list[RawFile]]:
    """The files of each source. Raises DataError if a source has none, InputError if `raw` cannot be opened."""
    files = listing(recipe, raw)
    size = sum(file.bytes for found in files.values() for file in found)
    count = sum(len(found) for found in files.values())
    progress.say(f"{recipe.name}: {len(files)} sources, {count:,} raw files, {size / 1e6:,.1f} MB")
    return with_hashes(files, build)


def with_hashes(files: Mapping[str, Sequence[RawFile]], build: Build) -> dict[str, list[RawFile]]:
    """Files by name, each with its SHA-256, which is known or is made."""
    known = _read(build)
    unknown = [file for found in files.values() for file in found if _key(file) not in known]
    known |= {_key(file): file.sha256 for file in _hash(unknown, build)}
    if unknown and not build.dry:
        _write(build, known)
    return {
        name: [file.model_copy(update={"sha256": known[_key(file)]}) for file in found] for name, found in files.items()
    }


def listing(recipe: DataRecipe, raw: str) -> dict[str, list[RawFile]]:
    """The raw files of each source, not hashed. Raises as `inventory` does."""
    root = RawRoot(raw)
    return {name: root.files(name, source) for name, source in recipe.sources.items()}


def evaluation_listing(recipe: DataRecipe, raw: str, until: str) -> dict[str, list[RawFile]]:
    """The evaluation files by set, not hashed; none if a build up to `until` does not read them. Raises DataError."""
    if recipe.decontaminate is None or until in BEFORE_EVALUATIONS:
        return {}
    return {name: files_of(name, one, raw) for name, one in recipe.decontaminate.against.items()}


def listing_key(
    recipe: DataRecipe, files: dict[str, list[RawFile]], until: str, evaluations: Mapping[str, Sequence[RawFile]] = NONE
) -> str:
    """A digest of what a build would read, by name, size and time of change, and of what it would make of it.

    Equal keys mean the same build; the same build may have another key where files were touched or copied.
    """
    keys = {name: [_key(file) for file in found] for name, found in files.items()}
    more = {"evaluations": {name: [_key(file) for file in found] for name, found in evaluations.items()}}
    return digest_of(
        {"recipe": recipe.model_dump(mode="json"), "files": keys, "until": until, **(more if evaluations else {})}
    )


def build_identity(
    recipe: DataRecipe,
    files: dict[str, list[RawFile]],
    until: str,
    without: str = "",
    evaluations: Mapping[str, Sequence[RawFile]] = NONE,
) -> str:
    """The digest of what makes a build that build: the recipe and the content of its raw files, wherever they lie.

    without: the digest of its tombstones, if it has any.
    """
    more: dict[str, object] = {"without": without} if without else {}
    if evaluations:
        more["evaluations"] = _contents(evaluations)
    return digest_of({"recipe": recipe.model_dump(mode="json"), "files": _contents(files), "until": until, **more})


def _contents(files: Mapping[str, Sequence[RawFile]]) -> dict[str, list[tuple[str, str]]]:
    return {name: [(file.path, file.sha256) for file in found] for name, found in files.items()}


class Hashed(Model):
    files: tuple[RawFile, ...]


def _hash(files: Sequence[RawFile], build: Build) -> list[RawFile]:
    if build.dry and (size := sum(file.bytes for file in files)) > DRY_BYTES:
        progress.say(
            f"{len(files):,} raw files ({size / 1e9:,.1f} GB) are new, or were touched since a build into this store "
            "read them; what follows takes their content for new"
        )
        return [file.model_copy(update={"sha256": _key(file)}) for file in files]
    if build.dry or not files:
        return [sha256_of(file) for file in progress.track(files, label=HASHING, total=len(files))]
    with build.store.draft(f"hashes/{short(digest_of([_key(file) for file in files]))}") as directory:
        done = build.workers.map(_hash_all, tasks(files), result=Hashed, notes=start(directory).notes, label=HASHING)
        shutil.rmtree(directory)
    return [file for group in done for file in group.files]


def _hash_all(files: tuple[RawFile, ...]) -> Hashed:
    return Hashed(files=tuple(sha256_of(file) for file in files))


def _key(file: RawFile) -> str:
    return hashlib.sha256(f"{file.uri}|{file.bytes}|{file.changed_ns}".encode()).hexdigest()


def _cache_file(build: Build) -> Path | None:
    return build.store.root / CACHE / "raw.json" if isinstance(build.store, LocalStore) else None


def _read(build: Build) -> dict[str, str]:
    file = _cache_file(build)
    if file is None or not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_bytes()))
    except (ValueError, TypeError):
        return {}  # it is only a cache


def _write(build: Build, known: dict[str, str]) -> None:
    file = _cache_file(build)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(known).encode())
