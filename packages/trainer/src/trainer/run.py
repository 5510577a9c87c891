"""A run's directory: what it is, what it measured, what it published.

    <store>/runs/<run>/run.json          the run: resolved recipe, shape, timeline, mixture; enough to go on with it
                       metrics.jsonl     a row per step
                       checkpoints/<step>/
                       logs/<rank>.log   what the workers of the last start said

A run is named by what makes it that run (recipe, mixture, seed, tokens, size), so the same command finds it again.
"""

from __future__ import annotations

import fcntl
import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from manifest.artifact import Opened, open_artifact, relative_uri, resolve
from manifest.checkpoint import Checkpoint, Pace, Timeline
from manifest.errors import CorruptArtifact, InputError, NotAnArtifact, RecipeError, WrongArtifact
from manifest.fields import validate
from manifest.identity import digest_of, short
from manifest.order import Segment
from manifest.record import Model, Reference
from manifest.store import LocalStore, open_store, write_atomic
from trainer.model.shape import Shape
from trainer.packs import packing_version
from trainer.recipe import TrainRecipe

RUN = "run.json"
METRICS = "metrics.jsonl"
LOCK_POLL_S = 0.2


class MixtureChange(Model):
    """From step `step` on the run reads `mixture`."""

    step: int
    mixture: Reference


class Run(Model):
    """run.json. `recipe` is resolved: its phases have the pace of the size. `tokens` is what --tokens asked, or None.

    `mixture` is what the run began with, which makes it that run; `changes`, in order of step, what it went on with.
    `base` is the model whose weights it began with, `rows` those of tokens that the base had not (adapt/). `skipped`
    are the steps [first, stop) that each rewind passes over, in the order of the rewinds (spikes.py). All uris are
    relative to the run's directory, or absolute.
    """

    name: str
    identity: str
    recipe: TrainRecipe
    size: str
    seed: int
    tokens: int | None
    mixture: Reference
    shape: Shape
    timeline: Timeline
    changes: tuple[MixtureChange, ...] = ()
    packs: tuple[Reference, ...] = ()
    base: Reference | None = None
    rows: Reference | None = None
    skipped: tuple[tuple[int, int], ...] = ()

    @property
    def mixtures(self) -> tuple[Reference, ...]:
        """Every mixture of the run, in the order in which it reads them."""
        return (self.mixture, *(change.mixture for change in self.changes))

    def mixture_of(self, segment: int) -> Reference:
        """The mixture that a segment of the timeline reads."""
        wanted = self.timeline.order.segments[segment].mixture
        return next(mixture for mixture in self.mixtures if mixture.id == wanted)

    @property
    def path(self) -> str:
        """Where in the store the run lies."""
        return f"runs/{self.name}"

    def checkpoint_path(self, step: int) -> str:
        return f"{self.path}/checkpoints/{step:08d}"


def run_identity(
    recipe: TrainRecipe,
    *,
    size: str,
    shape: Shape,
    seed: int,
    tokens: int | None,
    mixture: str,
    start: dict[str, Any] | None = None,
) -> str:
    """The digest of what makes a run that run. mixture: its id; start: what it starts from, if it does."""
    what = {"recipe": recipe.identified(), "size": size, "shape": shape.model_dump(mode="json")}
    packing = packing_version(recipe)
    if packing is not None:
        what["packing"] = packing
    if start is not None:
        what["start"] = start
    return digest_of(what | {"seed": seed, "tokens": tokens, "mixture": mixture})


def run_name(recipe: TrainRecipe, size: str, identity: str) -> str:
    """The name that a run has unless --name gives it another."""
    return f"{recipe.name}-{size}-{short(identity)}"


def local_store(uri: str | Path) -> LocalStore:
    """The store of a run. Raises InputError if it is no directory: metrics are appended, which object stores cannot."""
    store = open_store(uri)
    if not isinstance(store, LocalStore):
        raise InputError(f"--out {uri}: a run needs a directory that all workers see; found an object store")
    return store


def enter(store: LocalStore, run: Run) -> Run:
    """Makes the run's directory, or finds it there. Returns the run as `known` does, and raises as it does."""
    (store.root / run.path).mkdir(parents=True, exist_ok=True)
    run = known(store, run)
    write_run(store, run)
    return run


def known(store: LocalStore, asked: Run) -> Run:
    """The run that is asked for with the order and the mixtures that it has, if it is there; how it is carried out is
    taken from the new command.

    Raises RecipeError if a run of that name is another run, and WrongArtifact if it began with another mixture.
    """
    if not (store.root / asked.path / RUN).is_file():
        return asked
    present = read_run(store.root / asked.path)
    _require_same(present, asked, store.where(asked.path))
    kept = {key: getattr(present, key) for key in ("timeline", "changes", "packs", "base", "rows", "skipped")}
    return asked.model_copy(update=kept)


def write_run(store: LocalStore, run: Run) -> None:
    """Writes run.json."""
    write_atomic(store.root / run.path / RUN, (run.model_dump_json(indent=2) + "\n").encode())


def _require_same(present: Run, asked: Run, directory: str) -> None:
    if present.identity == asked.identity:
        return
    if present.mixture.id != asked.mixture.id:
        uri = resolve(directory, present.mixture.uri)
        raise WrongArtifact(
            f"run {present.name} {'began with' if present.changes else 'reads'} mixture {named(present.mixture)}, not "
            f"{named(asked.mixture)}; give --mixture {uri} (and --continue-with to replace it), or another --name"
        )
    differing = [key for key in ("size", "shape", "seed", "tokens") if getattr(present, key) != getattr(asked, key)]
    if getattr(present.base, "id", None) != getattr(asked.base, "id", None):
        differing.append("base")
    raise RecipeError(
        f"run {present.name} is another run: it has another {' and '.join(differing or ['recipe'])}; choose another "
        "--name, or leave --name out"
    )


def read_run(directory: Path) -> Run:
    """The run in a directory. Raises NotAnArtifact if there is none, RecipeError if run.json is not of this version."""
    file = directory / RUN
    if not file.is_file():
        raise NotAnArtifact(f"{directory} is not a run: it has no {RUN}; give <store>/runs/<run>")
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CorruptArtifact(f"{file} is damaged ({error}); restore it, or delete the run and train again") from error
    return validate(Run, fields, str(file))


@contextmanager
def held(directory: Path, wait_s: float = 0.0) -> Iterator[None]:
    """The run, for one `trainer fit` at a time. Raises InputError if another still holds it after wait_s seconds."""
    given_up = time.monotonic() + wait_s
    with (directory / ".lock").open("w") as file:
        while not _lock(file):
            if time.monotonic() >= given_up:
                raise InputError(f"{directory} is being trained by another process; wait for it, or stop it")
            time.sleep(LOCK_POLL_S)
        yield


def _lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def mixture_reference(mixture: Opened, base: str) -> Reference:
    """The mixture, as the artifact at `base` refers to it."""
    manifest = mixture.manifest
    return Reference(kind="mixture", name=manifest.name, id=manifest.id, uri=relative_uri(mixture.uri, base))


def named(mixture: Reference) -> str:
    """A mixture in messages."""
    return f"{mixture.name}-{short(mixture.id)}"


def open_mixture(directory: str, run: Run, reference: Reference) -> Opened:
    """A mixture of the run in a directory. Raises ArtifactError, and WrongArtifact if another one is in its place."""
    mixture = open_artifact(resolve(directory, reference.uri), kind="mixture")
    if mixture.manifest.id != reference.id:
        raise WrongArtifact(
            f"run {run.name} reads mixture {named(reference)}; at {mixture.uri} there is "
            f"{mixture.manifest.name}-{short(mixture.manifest.id)}. Restore it"
        )
    return mixture


def mixture_inputs(store: LocalStore, run: Run, path: str) -> dict[str, Reference]:
    """The mixtures that the order of a run reads, as inputs of the artifact at `path` in the store."""
    read = {segment.mixture for segment in run.timeline.order.segments}
    mixtures = {mixture.id: mixture for mixture in run.mixtures if mixture.id in read}.values()
    names = Counter(mixture.name for mixture in mixtures)
    base = store.where(run.path)
    return {
        mixture.name if names[mixture.name] == 1 else named(mixture): mixture.model_copy(
            update={"uri": relative_uri(resolve(base, mixture.uri), store.where(path))}
        )
        for mixture in mixtures
    }


def started_from(store: LocalStore, run: Run, path: str) -> dict[str, Reference]:
    """The model that a run began with and the rows of its new tokens, as inputs of the artifact at `path`."""
    base = store.where(run.path)
    return {
        name: reference.model_copy(update={"uri": relative_uri(resolve(base, reference.uri), store.where(path))})
        for name, reference in (("base model", run.base), ("new rows", run.rows))
        if reference is not None
    }


def checkpoints(store: LocalStore, run: Run) -> Iterator[Checkpoint]:
    """The run's checkpoints, newest first."""
    for name in reversed(store.list(f"{run.path}/checkpoints")):
        found = store.manifest(f"{run.path}/checkpoints/{name}")
        assert isinstance(found, Checkpoint)
        yield found


def newest(store: LocalStore, run: Run) -> Opened | None:
    """The newest checkpoint that training can go on from.

    It does not fall back to an older one in silence: raises CorruptArtifact if it is not whole, WrongArtifact if it has
    not read what the run's order says.
    """
    for record in checkpoints(store, run):
        if record.full:
            opened = open_artifact(store.where(run.checkpoint_path(record.step)), kind="checkpoint")
            _require_own(run, record, opened.uri)
            return opened
    return None


def _require_own(run: Run, record: Checkpoint, where: str) -> None:
    has, expected = (_segments_before(timeline, record.step) for timeline in (record.timeline, run.timeline))
    if has == expected:
        return
    names = {reference.id: named(reference) for reference in (*record.inputs.values(), *run.mixtures)}
    read, planned = (
        ", then ".join(dict.fromkeys(names.get(s.mixture, short(s.mixture)) for s, _ in segments)) or "nothing"
        for segments in (has, expected)
    )
    raise WrongArtifact(
        f"{where} is not a checkpoint of run {run.name}: up to step {record.step} it has read {read}; the run's order "
        f"is another, of {planned}. Move it away; the run goes on from the one before"
    )


def _segments_before(timeline: Timeline, step: int) -> list[tuple[Segment, Pace]]:
    """The segments that the first `step` steps read, as they were planned."""
    return [
        (segment.model_copy(update={"cut_after": None}), pace)
        for segment, pace in zip(timeline.order.segments, timeline.paces, strict=True)
        if pace.first_step < step
    ]


def rewind(file: Path, step: int) -> None:
    """Drops the rows of a metrics file from step `step` on, and a row that a killed run left half written."""
    if not file.is_file():
        return
    lines = file.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if _step_of(line) < step]
    if len(kept) < len(lines):
        write_atomic(file, b"".join(kept))


def _step_of(line: bytes) -> float:
    try:
        row: dict[str, Any] = json.loads(line)
    except ValueError:
        return float("inf")
    return int(row["step"]) if line.endswith(b"\n") else float("inf")
