"""What the store holds, as HTTP shows it: artifacts by path or id, mixtures, and the measurements of runs.

Published artifacts do not change, so their manifests are read once.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, get_args

from sqlalchemy.orm import Session

from gateway.ledger.states import Kind
from gateway.ledger.tables import EntryRow
from gateway.messages import Mixture as MixtureMessage
from gateway.messages import Page, Result
from manifest.errors import ArtifactError, InputError, NotAnArtifact
from manifest.mixture import Mixture
from manifest.record import MANIFEST, Manifest
from manifest.store import LocalStore, Store

SHORTEST_ID = 12
LONGEST_PATH = 1000
MOST_CACHED = 4096

log = logging.getLogger("gateway.store")

_ENTRY = re.compile(rf"({'|'.join(get_args(Kind))})-[0-9a-f]+")
_ID = re.compile(rf"[0-9a-f]{{{SHORTEST_ID},64}}")


def find(store: Store, reference: str, kind: str | None = None) -> tuple[str, Manifest]:
    """An artifact by its path in the store, or by its id (12 or more of its characters), and that path.

    Raises InputError: there is none, or it is of another kind.
    """
    path = reference.strip("/")
    found = _manifest(store, path) if _is_plain(path) else None
    if found is None and _ID.fullmatch(reference):
        path, found = _by_id(store, reference, kind)
    if found is None:
        raise NotAnArtifact(f"there is no artifact {reference} in this store")
    if kind is not None and found.kind != kind:
        raise InputError(f"{path} is a {found.kind}; expected a {kind}")
    return path, found


def published_by(session: Session, reference: str) -> str:
    """A reference; the id of an entry as the path of what it published. Raises InputError if it has not."""
    parts = _ENTRY.fullmatch(reference)
    row = session.get(EntryRow, reference) if parts else None
    if row is None:
        return reference
    if row.result is None:
        raise InputError(f"{reference} has published nothing: it is {row.state}")
    return str(row.result["path"])


def result_of(path: str, manifest: Manifest) -> Result:
    return Result(path=path, kind=manifest.kind, name=manifest.name, id=manifest.id)


def mixtures_page(store: Store, *, cursor: str | None, limit: int) -> Page[MixtureMessage]:
    """Mixtures, newest first, and of those made at one time by path; `cursor` as a page before gave it."""
    found = [_mixture(path, one) for path, one in _all_of(store, "mixtures") if isinstance(one, Mixture)]
    found.sort(key=_place, reverse=True)
    after = [one for one in found if cursor is None or _place(one) < cursor]
    return Page(items=after[:limit], next=_place(after[limit - 1]) if len(after) > limit else None)


def mixture(store: Store, reference: str) -> MixtureMessage:
    """One mixture with its manifest. Raises InputError."""
    for asked in (reference, f"mixtures/{reference}"):
        if _is_plain(asked) and _manifest(store, asked) is not None:
            reference = asked
    path, found = find(store, reference, "mixture")
    assert isinstance(found, Mixture)
    return _mixture(path, found).model_copy(update={"manifest": json.loads(found.to_json())})


def newest_checkpoint(store: Store, run_path: str) -> str | None:
    """The path of a run's checkpoint with the most steps."""
    steps = [step for step in store.list(f"{run_path}/checkpoints") if step.isdigit()]
    return f"{run_path}/checkpoints/{max(steps, key=int)}" if steps else None


def metrics_rows(store: Store, run_path: str, from_step: int = 0, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows of a run's metrics.jsonl from a step on; a row that is being written is left for the next time."""
    rows = (json.loads(line) for line in _lines(store, run_path))
    return list(itertools.islice((row for row in rows if row["step"] >= from_step), limit))


def metrics_thinned(store: Store, run_path: str, most: int) -> list[dict[str, Any]]:
    """Rows evenly spread over a run, at most twice `most`, and besides them that of the lowest loss, and the last."""
    kept: dict[int, dict[str, Any]] = {}
    lowest = last = None
    every = 1
    for number, line in enumerate(_lines(store, run_path)):
        last = number, json.loads(line)
        loss = last[1]["loss"]  # null where a step had nothing to learn
        if loss is not None and (lowest is None or loss < lowest[1]["loss"]):
            lowest = last
        if number % every == 0:
            kept[number] = last[1]
        if len(kept) > 2 * most:
            every *= 2
            kept = {number: row for number, row in kept.items() if number % every == 0}
    kept |= dict(one for one in (lowest, last) if one is not None)
    return [row for _, row in sorted(kept.items())]


def _lines(store: Store, run_path: str) -> Iterator[bytes]:
    file = store.root / run_path / "metrics.jsonl" if isinstance(store, LocalStore) else None
    if file is None or not file.is_file():
        return
    with file.open("rb") as lines:
        for line in lines:
            if line.endswith(b"\n"):
                yield line


def _mixture(path: str, manifest: Mixture) -> MixtureMessage:
    return MixtureMessage(
        path=path,
        id=manifest.id,
        name=manifest.name,
        created=manifest.created or None,
        phases=[phase.name for phase in manifest.phases],
        tokens=sum(stream.tokens for stream in manifest.streams.values()),
        documents=sum(stream.documents for stream in manifest.streams.values()),
    )


def _place(one: MixtureMessage) -> str:
    return f"{one.created.isoformat() if one.created else ''} {one.path}"


def _by_id(store: Store, start: str, kind: str | None) -> tuple[str, Manifest | None]:
    """The artifact whose id begins so. Raises InputError if there are several."""
    found = {m.id: (path, m) for path, m in _everything(store) if m.id.startswith(start) and kind in (None, m.kind)}
    if len(found) > 1:
        raise InputError(f"{len(found)} artifacts have an id that begins with {start}; give more of it")
    return next(iter(found.values()), (start, None))


def _everything(store: Store) -> Iterator[tuple[str, Manifest]]:
    kinds = (name for name in store.folders("") if not name.startswith("."))
    runs = (f"runs/{run}/checkpoints" for run in store.folders("runs"))
    for folder in itertools.chain(kinds, runs):
        yield from _all_of(store, folder)


def _all_of(store: Store, folder: str) -> Iterator[tuple[str, Manifest]]:
    for name in store.list(folder):
        try:
            found = _manifest(store, f"{folder}/{name}")
        except ArtifactError as error:  # one that is damaged does not hide the others
            log.warning("%s", error)
            continue
        if found is not None:
            yield f"{folder}/{name}", found


def _manifest(store: Store, path: str) -> Manifest | None:
    if len(path) > LONGEST_PATH or not store.exists(f"{path}/{MANIFEST}"):
        return None
    return _read(store, path)


@lru_cache(maxsize=MOST_CACHED)
def _read(store: Store, path: str) -> Manifest | None:
    return store.manifest(path)


def _is_plain(path: str) -> bool:
    """Whether a path stays where it begins and names no hidden file."""
    steps = path.split("/")
    return path.isprintable() and not any(step == "" or step.startswith(".") or "\\" in step for step in steps)
