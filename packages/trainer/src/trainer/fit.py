"""`trainer fit`: a recipe over a mixture → a run → its final checkpoint.

    recipe, size, mixture, seed, tokens ─► run.json ─► workers ─► checkpoints, metrics.jsonl

The same command again goes on with the same run, from its newest full checkpoint, on however many workers. A run that
was continued with another mixture goes on with that one, also where the command does not say so again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING

from manifest.artifact import Opened, open_artifact, read_manifest
from manifest.errors import RecipeError
from manifest.mixture import Mixture
from manifest.store import LocalStore
from trainer import restarts, schedule
from trainer.continuation import continued, require_run
from trainer.data.answers import answer_remarks, require_whole_answers
from trainer.data.checks import remarks, require_readable
from trainer.launch import Workers, launch
from trainer.model.shape import Shape
from trainer.packs import by_key, make_packs, open_packs, pack_remarks, references, remake_packs
from trainer.progress import Watch, say
from trainer.recipe import TrainRecipe
from trainer.run import (
    RUN,
    Run,
    checkpoints,
    held,
    known,
    local_store,
    mixture_reference,
    named,
    newest,
    open_mixture,
    run_identity,
    run_name,
    write_run,
)
from trainer.sizes import Resolved, shape_of
from trainer.summary import summary
from trainer.timeline import make_timeline, run_seed, tokens_before
from trainer.tokenizer import with_first_row
from trainer.trainable import require_trainable

if TYPE_CHECKING:  # torch, which the service plans without
    from trainer.adapt.start import Start

MOST_BETWEEN_SAVES = 10**9
"""Tokens. A tenth of a large run would be days of work to lose."""


@dataclass(frozen=True)
class FitOptions:
    """What is asked for. None: the mixture's seed and tokens, a name from all of it.

    continue_with: the mixture to read from the newest full checkpoint on; `mixture` is what the run began with.
    wait_s: how many seconds to wait for another process that trains this run. max_restarts: see restarts.py.
    tensorboard: whether the metrics are written for TensorBoard, too.
    """

    recipe: Resolved
    mixture: str
    out: str
    workers: Workers
    tokens: int | None = None
    seed: int | None = None
    name: str | None = None
    continue_with: str | None = None
    wait_s: float = 0.0
    max_restarts: int = restarts.MOST
    tensorboard: bool = False


def fit(options: FitOptions) -> str:
    """Trains a run to its end, or until this process is asked to stop. Returns the URI of the newest checkpoint.

    Raises WinnowError as the workers do; KeyboardInterrupt, after saving, if it was interrupted.
    """
    store = local_store(options.out)
    asked = plan_run(options, store)
    if options.continue_with is not None:
        require_run(store, asked)
    for line in _remarks(options, asked, store):
        say(line)
    directory = store.root / asked.path
    directory.mkdir(parents=True, exist_ok=True)
    with held(directory, options.wait_s):
        run = known(store, asked)
        base = store.where(run.path)
        later = (open_mixture(base, run, change.mixture) for change in run.changes)
        remake_packs(store, base, run.packs, later, run.recipe, say)
        if options.continue_with is not None:
            run = continued(store, run, options.continue_with, options.recipe.where)
        write_run(store, run)
        found = newest(store, run)
        total = run.timeline.total_steps
        if found is not None and found.manifest.step == total:  # type: ignore[attr-defined]
            say(f"run {run.name} is already finished ({total} steps)")
            return found.uri
        _announce(run, found, total)
        if found is None and run.rows is not None:
            _tell(options, store, run)
        with _interrupts() as interrupts, Watch(directory, run, tensorboard=options.tensorboard) as watch:
            most = options.max_restarts
            launch(options.workers, store, run, tick=watch.look, asked=interrupts.asked, max_restarts=most)
    last = next(checkpoints(store, run))
    for line in summary(directory, last):
        say(line)
    if interrupts.by_keyboard:
        raise KeyboardInterrupt
    return store.where(run.checkpoint_path(last.step))


@dataclass(frozen=True)
class Asked:
    """A run before it is planned: what makes it that run, and its name."""

    mixture: Opened
    seed: int
    shape: Shape
    identity: str
    name: str
    start: Start | None = None

    @property
    def path(self) -> str:
        """Where in the store the run lies."""
        return f"runs/{self.name}"


def ask(options: FitOptions) -> Asked:
    """Holds recipe, mixture and flags against each other; makes nothing. Raises RecipeError, ArtifactError."""
    resolved = options.recipe
    if resolved.recipe.vocabulary is not None and resolved.base is None:
        raise RecipeError(
            f"{resolved.where}: vocabulary says how embeddings grow, and there is no model; give start_from or --base, "
            "or remove it"
        )
    mixture = open_artifact(options.mixture, kind="mixture")
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    seed = run_seed(manifest, options.seed)
    make_timeline(manifest, resolved.recipe, where=resolved.where, seed=seed, tokens=options.tokens)
    require_readable(mixture, resolved.recipe, resolved.where)
    shape = shape_of(resolved.recipe, resolved.size, resolved.vocab(manifest.tokenizer.vocab_size))
    require_trainable(with_first_row(resolved.recipe, mixture, resolved.where).trainables, shape, resolved.where)
    start = _ask_start(options, mixture)
    identity = run_identity(
        resolved.recipe,
        size=resolved.name,
        shape=shape,
        seed=seed,
        tokens=options.tokens,
        mixture=manifest.id,
        start=None if start is None else start.identified(),
    )
    name = options.name or run_name(resolved.recipe, resolved.name, identity)
    return Asked(mixture, seed, shape, identity, name, start)


def _ask_start(options: FitOptions, mixture: Opened) -> Start | None:
    if options.recipe.base is None:
        return None
    from trainer.adapt.start import ask_start

    return ask_start(options.recipe, mixture, local_store(options.out))


def plan_run(options: FitOptions, store: LocalStore) -> Run:
    """Resolves everything: from here on no default is left. Makes the packs that the run reads, if any.

    Raises as `ask` and `make_packs` do.
    """
    asked, resolved = ask(options), options.recipe
    manifest = asked.mixture.manifest
    assert isinstance(manifest, Mixture)
    if not (store.root / asked.path / RUN).is_file():  # a run of before this was asked goes on
        require_whole_answers(asked.mixture, resolved.recipe, resolved.where)
    packs = make_packs(store, asked.mixture, resolved.recipe, say)
    timeline = make_timeline(
        manifest, resolved.recipe, where=resolved.where, seed=asked.seed, tokens=options.tokens, packs=packs
    )
    base = store.where(asked.path)
    recipe = with_first_row(resolved.recipe, asked.mixture, resolved.where)
    run = Run(
        name=asked.name,
        identity=asked.identity,
        recipe=_with_saves(recipe, tokens_before(timeline, timeline.total_steps)),
        size=resolved.name,
        seed=asked.seed,
        tokens=options.tokens,
        mixture=mixture_reference(asked.mixture, base),
        shape=asked.shape,
        timeline=timeline,
        packs=references(list(packs.values()), base),
    )
    return run if asked.start is None else _with_start(run, asked.start, store, asked.mixture)


def _with_start(run: Run, start: Start, store: LocalStore, mixture: Opened) -> Run:
    from trainer.adapt.start import plan_start

    planned = plan_start(store, start, mixture, shape=run.shape, seed=run.seed, at=store.where(run.path), say=say)
    return run.model_copy(update={"base": planned.base, "rows": planned.rows})


def _tell(options: FitOptions, store: LocalStore, run: Run) -> None:
    """Says which new tokens the mixture reads."""
    from trainer.adapt.start import firing_lines

    for line in firing_lines(open_artifact(options.mixture, kind="mixture"), store, run):
        say(line)


def _remarks(options: FitOptions, run: Run, store: LocalStore) -> Iterator[str]:
    """What a user should know before the run begins."""
    resolved = options.recipe
    for note in resolved.notes:
        yield f"size {resolved.name} sets {note}"
    _, mixture = read_manifest(options.mixture, kind="mixture")
    assert isinstance(mixture, Mixture)
    yield from remarks(mixture, run.recipe)
    yield from answer_remarks(open_artifact(options.mixture, kind="mixture"), run.recipe)
    yield from pack_remarks(mixture, run.recipe, by_key(open_packs(store.where(run.path), run.packs)))
    for warning in schedule.warnings(run.recipe, run.timeline):
        yield f"warning: {warning}"


def _with_saves(recipe: TrainRecipe, total: int) -> TrainRecipe:
    if recipe.save.is_paced:
        return recipe
    every = max(1, min(total // 10, MOST_BETWEEN_SAVES))
    return recipe.model_copy(update={"save": recipe.save.model_copy(update={"every_tokens": every})})


def _announce(run: Run, found: Opened | None, total: int) -> None:
    tokens = tokens_before(run.timeline, total)
    what = f"run {run.name}: {run.shape.parameters:,} parameters, {total:,} steps, {tokens:,} tokens"
    for change in run.changes:
        say(f"run {run.name} reads {named(change.mixture)} from step {change.step} on")
    say(what if found is None else f"{what}; goes on after step {found.manifest.step}")  # type: ignore[attr-defined]


@dataclass
class _Interrupts:
    """Signals that have arrived."""

    count: int = 0
    by_keyboard: bool = field(default=False)

    def asked(self) -> bool:
        return self.count > 0


@contextmanager
def _interrupts() -> Iterator[_Interrupts]:
    """SIGTERM and ^C ask the run to save at the end of its step; the second ^C stops at once."""
    seen = _Interrupts()

    def note(number: int, frame: FrameType | None) -> None:
        seen.count += 1
        seen.by_keyboard = number == signal.SIGINT
        if seen.by_keyboard and seen.count > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
