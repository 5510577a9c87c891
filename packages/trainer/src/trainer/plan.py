"""What a run would be: parameters, tokens, steps, FLOPs, memory per stage of ZeRO. Arithmetic only; trains nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from manifest.artifact import open_artifact
from manifest.errors import RecipeError
from manifest.mixture import Mixture
from manifest.record import Model
from trainer.model.shape import Shape
from trainer.packs import Packs, find_packs, pack_remarks
from trainer.plan_memory import (
    WORKERS,
    Room,
    gigabytes,
    held_and_trained,
    memory_bytes,
    room,
    room_lines,
    trained_parameters,
)
from trainer.plan_schedule import PhaseSchedules, plan_schedules, schedule_lines
from trainer.recipe import TrainRecipe
from trainer.sizes import Published, Resolved, shape_of
from trainer.timeline import make_timeline, tokens_before


class PhasePlan(Model):
    """One phase. `steps` and what follows from it are None where neither a mixture nor the recipe says how many."""

    name: str
    seq_len: int
    tokens_per_step: int
    flops_per_token: float
    trained_parameters: int
    steps: int | None
    tokens: int | None
    flops: float | None
    schedules: PhaseSchedules | None = None


class Plan(Model):
    """A run before it is one. memory_bytes[stage][workers]: for each worker, without activations. packing: what is
    said of packs. published: what the original's authors state. room: whether it fits, if that was asked.
    """

    recipe: str
    size: str
    parameters: int
    embedding_parameters: int
    non_embedding_parameters: int
    vocab_size: int
    padded_vocab: int
    precision: str
    phases: tuple[PhasePlan, ...]
    steps: int | None
    tokens: int | None
    flops: float | None
    memory_bytes: dict[str, dict[str, int]]
    notes: tuple[str, ...]
    packing: tuple[str, ...] = ()
    published: Published | None = None
    room: Room | None = None


def make_plan(
    resolved: Resolved, *, mixture: str | None, tokens: int | None, gpus: int = 1, bytes_each: int | None = None
) -> Plan:
    """The plan of a recipe at a size; over a mixture, if one is given; with what fits on `gpus` devices of `bytes_each`
    bytes, if they are. Raises RecipeError, ArtifactError.
    """
    engine = resolved.recipe.engine
    opened = None if mixture is None else open_artifact(mixture, kind="mixture")
    manifest = None if opened is None else opened.manifest
    assert manifest is None or isinstance(manifest, Mixture)
    packs = {} if opened is None else find_packs(opened, resolved.recipe)
    vocab_size = resolved.vocab(None if manifest is None else manifest.tokenizer.vocab_size)
    shape = shape_of(resolved.recipe, resolved.size, vocab_size)
    pace = (
        _stated_pace(resolved.recipe)
        if manifest is None
        else _pace(manifest, resolved.recipe, where=resolved.where, tokens=tokens, packs=packs)
    )
    phases = _phases(resolved.recipe, shape, pace)
    held, trained = held_and_trained(shape, resolved.recipe.phases)
    return Plan(
        recipe=resolved.recipe.name,
        size=resolved.name,
        parameters=shape.parameters,
        embedding_parameters=shape.embedding_parameters,
        non_embedding_parameters=shape.parameters - shape.embedding_parameters,
        vocab_size=vocab_size,
        padded_vocab=shape.padded_vocab,
        precision=engine.precision,
        phases=phases,
        steps=_total(phase.steps for phase in phases),
        tokens=_total(phase.tokens for phase in phases),
        flops=None if any(phase.flops is None for phase in phases) else sum(phase.flops or 0 for phase in phases),
        memory_bytes=memory_bytes(held, engine.precision, engine.offload, trained=trained),
        notes=resolved.notes,
        packing=() if manifest is None else tuple(pack_remarks(manifest, resolved.recipe, packs)),
        published=resolved.size.published,
        room=None
        if bytes_each is None
        else room(shape, resolved.recipe.phases, engine, gpus=gpus, bytes_each=bytes_each),
    )


Pace = dict[str, tuple[int | None, int | None]]
"""Steps and tokens per phase."""


def _pace(mixture: Mixture, recipe: TrainRecipe, *, where: str, tokens: int | None, packs: Packs) -> Pace:
    timeline = make_timeline(mixture, recipe, where=where, seed=0, tokens=tokens, packs=packs)
    ends = [pace.first_step + timeline.steps(segment) for segment, pace in enumerate(timeline.paces)]
    return {
        name: (end - pace.first_step, tokens_before(timeline, end) - tokens_before(timeline, pace.first_step))
        for name, pace, end in zip(recipe.phases, timeline.paces, ends, strict=True)
    }


def _stated_pace(recipe: TrainRecipe) -> Pace:
    return {
        name: (phase.reference_steps, phase.reference_steps and phase.reference_steps * phase.tokens_per_step)
        for name, phase in recipe.phases.items()
    }


def _phases(recipe: TrainRecipe, shape: Shape, pace: Pace) -> tuple[PhasePlan, ...]:
    steps = _steps(pace)
    schedules = {} if steps is None else plan_schedules(recipe, steps)
    return tuple(
        _phase(name, recipe, shape, *pace[name]).model_copy(update={"schedules": schedules.get(name)})
        for name in recipe.phases
    )


def steps_of(plan: Plan) -> dict[str, range]:
    """The steps of each phase. Raises RecipeError if they are not known."""
    found = _steps({phase.name: (phase.steps, phase.tokens) for phase in plan.phases})
    if found is None:
        raise RecipeError(
            f"{plan.recipe} {plan.size}: how many steps there are is not known; give --mixture, which decides it"
        )
    return found


def _steps(pace: Pace) -> dict[str, range] | None:
    steps: dict[str, range] = {}
    first = 0
    for name, (count, _) in pace.items():
        if count is None:
            return None
        steps[name] = range(first, first + count)
        first += count
    return steps


def _phase(name: str, recipe: TrainRecipe, shape: Shape, steps: int | None, tokens: int | None) -> PhasePlan:
    phase = recipe.phases[name]
    per_token = shape.flops_per_token(phase.seq_len)
    return PhasePlan(
        name=name,
        seq_len=phase.seq_len,
        tokens_per_step=phase.tokens_per_step,
        flops_per_token=per_token,
        trained_parameters=trained_parameters(shape, phase),
        steps=steps,
        tokens=tokens,
        flops=None if tokens is None else per_token * tokens,
    )


def _total(values: Iterable[int | None]) -> int | None:
    """The sum; None if one of them is unknown."""
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def lines(plan: Plan) -> Iterator[str]:
    """The plan for a person."""
    yield f"{plan.recipe} {plan.size}"
    yield (
        f"  parameters  {_short(plan.parameters)} ({_short(plan.non_embedding_parameters)} without the embedding); "
        f"vocabulary {plan.vocab_size:,} padded to {plan.padded_vocab:,}"
    )
    for phase in plan.phases:
        known = "" if phase.steps is None else f", {phase.steps:,} steps, {_short(phase.tokens or 0)} tokens"
        flops = "" if phase.flops is None else f", {phase.flops:.2e} FLOPs"
        yield f"  {phase.name:<10}  {phase.tokens_per_step:,} tokens per step of length {phase.seq_len:,}{known}{flops}"
        if phase.trained_parameters != plan.parameters:
            share = 100 * phase.trained_parameters / plan.parameters
            yield f"              trains {phase.trained_parameters:,} parameters, {share:.2f} % of as many as all"
        yield from (f"              {line}" for line in (schedule_lines(phase.schedules) if phase.schedules else ()))
    if plan.steps is not None and plan.tokens is not None and plan.flops is not None:
        yield f"  in all      {plan.steps:,} steps, {_short(plan.tokens)} tokens, {plan.flops:.2e} FLOPs"
    yield from _published(plan)
    workers = ", ".join(map(str, WORKERS))
    yield f"  memory      per worker, for {workers} workers, {_precision(plan)}, without activations"
    for stage, held in plan.memory_bytes.items():
        yield f"    {stage}    {', '.join(map(gigabytes, held.values()))}"
    if plan.room is not None:
        yield from room_lines(plan.room)
    for note in plan.notes:
        yield f"  size {plan.size} sets {note}"
    for remark in plan.packing:
        yield f"  {remark}"


def _precision(plan: Plan) -> str:
    return "bf16, as where a GPU has it" if plan.precision == "auto" else plan.precision


def _published(plan: Plan) -> Iterator[str]:
    """What the authors state beside what this recipe comes to."""
    if plan.published is None:
        return
    stated, own = plan.published.parameters, plan.parameters
    if stated is not None:
        yield f"  published   {stated:,} parameters; here {own:,} with the vocabulary's padding ({_apart(own, stated)})"
    stated, tokens = plan.published.tokens, plan.tokens
    if stated is not None and tokens is not None:
        yield f"  published   {stated:,} tokens; here {tokens:,} ({_apart(tokens, stated)})"


def _apart(own: int, stated: int) -> str:
    return f"{100 * (own / stated - 1):+.2f} %" if own != stated else "the same"


def _short(count: int) -> str:
    for factor, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= factor:
            return f"{count / factor:.4g}{unit}"
    return str(count)
