"""`trainer fit --continue-with`: another mixture for what is left of a run.

    steps     0 ─────────── checkpoint ─ boundary ──────────── end
    mixture   ── old ──────────────────────┤── new ──────────────
    streams   both have: go on             others: from their start        and so do packs

Every phase keeps its steps and blocks, so schedules, saves and the end of the run stay where they are; the new mixture
shares out the blocks that are left in the proportions in which it draws them. The boundary is the first step, from the
newest full checkpoint on, that begins with a block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from manifest.artifact import Opened, open_artifact
from manifest.checkpoint import Checkpoint, Pace, Timeline
from manifest.errors import InputError, NotAnArtifact, WrongArtifact
from manifest.identity import short
from manifest.mixture import Mixture, Stream
from manifest.order import OrderRecord, Segment, append, replace_from
from manifest.pack import capacity_of, tokens_id
from manifest.store import LocalStore
from trainer.data.answers import require_whole_answers
from trainer.data.checks import remarks, require_readable
from trainer.packs import Key, Packs, draws_of, make_packs, open_packs, references
from trainer.progress import say
from trainer.recipe import PhaseRecipe
from trainer.run import RUN, MixtureChange, Run, checkpoints, mixture_reference, newest, open_mixture
from trainer.timeline import apportion, require_same_phases

Content = tuple[tuple[str, ...], ...]


def require_run(store: LocalStore, run: Run) -> None:
    """Raises NotAnArtifact if there is no such run to continue."""
    if (store.root / run.path / RUN).is_file():
        return
    there = [name for name in store.folders("runs") if (store.root / "runs" / name / RUN).is_file()]
    raise NotAnArtifact(
        f"--continue-with goes on with a run, and {store.where(run.path)} is none; the runs there are "
        f"{', '.join(there) or 'none'}. Give the recipe, mixture, size, seed, tokens and name that the run was begun "
        "with, or leave --continue-with out"
    )


def continued(store: LocalStore, run: Run, uri: str, where: str) -> Run:
    """The run with the mixture at `uri` for what is left of it; as it is, if that is what it reads already.

    where: the recipe's file. Raises InputError if nothing is left or there is nothing to go on from, ArtifactError if
    the mixture cannot follow the one before, RecipeError if its phases are not the recipe's.
    """
    opened = open_artifact(uri, kind="mixture")
    mixture = opened.manifest
    assert isinstance(mixture, Mixture)
    if mixture.id == run.mixtures[-1].id:
        since = f"from step {run.changes[-1].step} on" if run.changes else "from its start"
        say(f"run {run.name} reads {_named(mixture)} already, {since}: nothing is changed")
        return run
    step = _boundary(store, run)
    former = _mixtures_before(store, run, step)
    _require_fits(run, mixture, former)
    require_same_phases(mixture, run.recipe, where)
    require_readable(opened, run.recipe, where)
    require_whole_answers(opened, run.recipe, where)
    packs = make_packs(store, opened, run.recipe, say, known=_packs_that_go_on(store, run, mixture, former))
    packed = {reference.id for reference in run.packs}
    timeline = changed(run.timeline, step, mixture, run.recipe.phases, former, packs=packs, packed=packed)
    for line in _said(run, step, timeline, mixture, former):
        say(line)
    kept = tuple(earlier for earlier in run.changes if earlier.step < step)
    change = MixtureChange(step=step, mixture=mixture_reference(opened, store.where(run.path)))
    added = references([p for p in packs.values() if p.manifest.id not in packed], store.where(run.path))
    # What was to be passed over from here on was of the former mixture.
    skipped = tuple((first, min(stop, step)) for first, stop in run.skipped if first < step)
    return run.model_copy(
        update={
            "timeline": timeline,
            "changes": (*kept, change),
            "packs": (*run.packs, *added),
            "skipped": skipped,
        }
    )


def _boundary(store: LocalStore, run: Run) -> int:
    """The step from which on another mixture can be read."""
    found = newest(store, run)
    newer = next(checkpoints(store, run), None)
    if found is None or newer is None:
        raise InputError(
            f"run {run.name} has no full checkpoint to go on from; train it until it has one, or begin another run "
            "with --mixture"
        )
    checkpoint = found.manifest
    assert isinstance(checkpoint, Checkpoint)
    total = run.timeline.total_steps
    if checkpoint.step == total:
        raise InputError(f"run {run.name} is finished ({total} steps): nothing is left for another mixture to be read")
    if newer.step > checkpoint.step:
        raise InputError(
            f"run {run.name} goes on from step {checkpoint.step}, its newest full checkpoint, but has a later one of "
            f"weights alone, which another mixture would contradict; remove {run.checkpoint_path(newer.step)}"
        )
    for step in range(checkpoint.step, total):
        if run.timeline.slot_at(step) is not None:
            return step
    raise InputError(
        f"run {run.name}: no step from {checkpoint.step} to its end ({total}) begins with a block of "
        f"{run.timeline.order.block_tokens} tokens, and a mixture is replaced between blocks; let the run end"
    )


def changed(
    timeline: Timeline,
    step: int,
    mixture: Mixture,
    phases: Mapping[str, PhaseRecipe],
    former: Mapping[str, Mixture],
    *,
    packs: Packs | None = None,
    packed: Collection[str] = (),
) -> Timeline:
    """A timeline that reads another mixture from `step` on, which begins with a block. Every phase keeps its blocks.

    phases: all phases, in order. former: the mixtures that the steps before read, by id. packs: of the mixture, for
    its `best_fit` phases; packed: the ids of those that the timeline reads. Raises RecipeError if a phase that is left
    draws no block of the mixture.
    """
    slot = timeline.slot_at(step)
    assert slot is not None
    left, paces = _left(timeline, slot)
    order = replace_from(timeline.order, slot)
    tapes = _tapes(order, former, packed)
    same = {stream.id: _tape_of(stream, tapes) for stream in mixture.streams.values()}
    made = Timeline(order=order, paces=timeline.paces[: len(order.segments)])
    for phase in (phase for phase in phases if phase in left):
        drawn, read = draws_of(mixture, phases[phase], mixture.phase(phase).draw, packs or {})
        draws = _shared_out(drawn, left[phase])
        streams = {view: (same.get(stream, stream), blocks) for view, (stream, blocks) in read.items()}
        order = append(made.order, mixture=mixture.id, phase=phase, draws=draws, streams=streams)
        pace = paces[phase].model_copy(update={"first_step": made.total_steps})
        made = Timeline(order=order, paces=(*made.paces, pace))
    return made


def _left(timeline: Timeline, slot: int) -> tuple[Counter[str], dict[str, Pace]]:
    """The blocks from a slot on and the pace, by phase."""
    left: Counter[str] = Counter()
    paces: dict[str, Pace] = {}
    for segment, pace in zip(timeline.order.segments, timeline.paces, strict=True):
        after = segment.first_slot + segment.slots - max(slot, segment.first_slot)
        if after > 0:
            left[segment.phase] += after
            paces[segment.phase] = pace
    return left, paces


def _shared_out(draw: Mapping[str, int], blocks: int) -> dict[str, int]:
    """So many blocks in the proportions of a phase's draws."""
    drawn = {view: count for view, count in sorted(draw.items()) if count}
    return dict(zip(drawn, apportion(list(drawn.values()), blocks), strict=True)) if drawn else {}


def _tapes(order: OrderRecord, former: Mapping[str, Mixture], packed: Collection[str]) -> dict[Content, str]:
    """The tokens ids under which an order reads streams, by what these hold. Packs have tapes of their own."""
    tapes: dict[Content, str] = {}
    for segment in order.segments:
        mixture = former[segment.mixture]
        for draw in (draw for draw in segment.draws if draw.stream not in packed):
            tapes.setdefault(_content(mixture.streams[mixture.views[draw.view].stream]), draw.stream)
    return tapes


def _tape_of(stream: Stream, tapes: Mapping[Content, str]) -> str:
    """The id under which the order reads a stream: that of the same tokens where they have another history."""
    return stream.id if stream.id in tapes.values() else tapes.get(_content(stream), stream.id)


def _packs_that_go_on(
    store: LocalStore, run: Run, mixture: Mixture, former: Mapping[str, Mixture]
) -> dict[Key, Opened]:
    """The run's packs of the same tokens as a mixture's streams, whatever the ids of these: their tapes go on.

    Raises ArtifactError as `open_packs` does.
    """
    contents = {s.id: _content(s) for before in former.values() for s in before.streams.values()}
    packs = [p for p in open_packs(store.where(run.path), run.packs) if tokens_id(p) in contents]
    found: dict[Key, Opened] = {}
    for stream in mixture.streams.values():
        same = [p for p in packs if contents[tokens_id(p)] == _content(stream)]
        for pack in sorted(same, key=lambda p: tokens_id(p) != stream.id):  # its own before that of another id
            found.setdefault((stream.id, capacity_of(pack)), pack)
    return found


def _content(stream: Stream) -> Content:
    """What makes two streams the same one: the bytes of their shards, in order."""
    return tuple(tuple(file.sha256 for file in shard.files()) for shard in stream.shards)


def _mixtures_before(store: LocalStore, run: Run, step: int) -> dict[str, Mixture]:
    """The mixtures that the steps before `step` read, by id."""
    segments = zip(run.timeline.order.segments, run.timeline.paces, strict=True)
    read = {segment.mixture for segment, pace in segments if pace.first_step < step}
    found: dict[str, Mixture] = {}
    for reference in run.mixtures:
        if reference.id in read:
            manifest = open_mixture(store.where(run.path), run, reference).manifest
            assert isinstance(manifest, Mixture)
            found[manifest.id] = manifest
    return found


def _require_fits(run: Run, mixture: Mixture, former: Mapping[str, Mixture]) -> None:
    before = former[run.mixture.id]
    if mixture.tokenizer.digest != before.tokenizer.digest:
        raise WrongArtifact(
            f"mixture {_named(mixture)} has another tokenizer ({short(mixture.tokenizer.digest)}) than "
            f"{_named(before)} ({short(before.tokenizer.digest)}), with which run {run.name} began; build it with "
            "`tokenizer: {path: …}` of that mixture's tokenizer"
        )
    if mixture.block_tokens != before.block_tokens:
        raise WrongArtifact(
            f"mixture {_named(mixture)} has blocks of {mixture.block_tokens} tokens; run {run.name} reads blocks of "
            f"{before.block_tokens}, as in {_named(before)}. Build it with `block_tokens: {before.block_tokens}`"
        )


def _said(run: Run, step: int, timeline: Timeline, mixture: Mixture, former: Mapping[str, Mixture]) -> Iterator[str]:
    """What a change means, for the person who asked for it. timeline: with the change."""
    new = _named(mixture)
    segments = list(zip(timeline.order.segments, timeline.paces, strict=True))
    read, added = (
        [segment for segment, pace in segments if (pace.first_step >= step) == is_new] for is_new in (False, True)
    )
    blocks = ", ".join(f"{segment.slots:,} blocks of phase {segment.phase!r}" for segment in added)
    yield f"run {run.name}: from step {step} on it reads {new}: {blocks}"
    known = _contents(read, former)
    drawn = _contents(added, {mixture.id: mixture})
    ended = known.keys() - {_content(stream) for stream in mixture.streams.values()}
    goes_on = {drawn[content] for content in known.keys() & drawn.keys()}
    begins = {drawn[content] for content in drawn.keys() - known.keys()}
    ends = {known[content] for content in ended}
    named = [", ".join(sorted(names)) or "none" for names in (goes_on, begins, ends)]
    yield "  streams that go on: {}; that begin: {}; that it does not have: {}".format(*named)
    for segment in added:
        planned = mixture.phase(segment.phase).blocks
        if segment.slots > planned:
            yield (
                f"  warning: phase {segment.phase!r} has {segment.slots:,} blocks left and {new} draws {planned:,}: "
                f"its streams are read {segment.slots / planned:.2f} times as often as it plans"
            )
    if ended and any(_heldout(before) != _heldout(mixture) for before in former.values()):
        yield (
            f"  warning: {new} holds out other documents than before; the run may have read some of them, so scores on "
            "them would flatter it (`manifest exposure` tells)"
        )
    yield from remarks(mixture, run.recipe)


def _contents(segments: Sequence[Segment], mixtures: Mapping[str, Mixture]) -> dict[Content, str]:
    """The names of the streams that segments read, by what these hold."""
    found: dict[Content, str] = {}
    for segment in segments:
        mixture = mixtures[segment.mixture]
        for draw in segment.draws:
            name = mixture.views[draw.view].stream
            found[_content(mixture.streams[name])] = name
    return found


def _heldout(mixture: Mixture) -> str | None:
    return None if mixture.heldout is None else mixture.heldout.id


def _named(mixture: Mixture) -> str:
    return f"{mixture.name}-{short(mixture.id)}"
