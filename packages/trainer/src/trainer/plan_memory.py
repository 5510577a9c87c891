"""What a worker holds while it trains: states by stage of ZeRO, activations of a micro-batch, and whether that fits.

N parameters; C width, E = heads · head_dim, F filter, V rows of the embedding, T tokens of a window. Bytes; GB are 10⁹.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from manifest.record import Model
from trainer.model.parameters import count
from trainer.model.shape import Shape
from trainer.recipe import EngineRecipe, PhaseRecipe
from trainer.trainable import ALL, Trainable, trained

WORKERS = (1, 8, 64)
"""Numbers of workers for which the plan says how much memory each of them needs."""

MOST_WORKERS = 2**16
GB = 10**9
STAGES = (0, 1, 2, 3)


class StageRoom(Model):
    """A stage of ZeRO on given devices. missing: what each lacks, 0 if it fits; least_gpus: how many of them would do,
    a power of two, None if no number does.
    """

    needed: int
    missing: int
    least_gpus: int | None


class Room(Model):
    """Devices, and what each stage needs of each of them: states and the activations of a micro-batch. recomputed: what
    these would be with activation checkpointing.
    """

    gpus: int
    bytes_each: int
    activations: int
    recomputed: int
    stages: dict[str, StageRoom]


def _half(precision: str) -> bool:
    return precision != "fp32"


def state_bytes(
    parameters: int,
    stage: int,
    workers: int,
    *,
    trained: int | None = None,
    precision: str = "fp32",
    offload: str = "none",
) -> int:
    """Bytes that each worker holds of weights, gradients and AdamW's moments (Rajbhandari et al., 2020).

    fp32: weights 4N, gradients 4N, moments 8N. bfloat16: weights 2N, gradients 2N, and weights in fp32 and moments 12N.
    From stage 1 on the optimiser's part is divided among the workers, from 2 on the gradients, from 3 on the weights;
    below stage 3 a partitioned optimiser in fp32 also keeps its own copy of the weights that it updates. What is frozen
    has weights alone (trained: how many are not; None is all). What is offloaded is the host's.
    """
    trained = parameters if trained is None else trained
    each = 2 if _half(precision) else 4
    weights, gradients = each * parameters, each * trained
    if stage == 0:
        return weights + gradients + (12 if _half(precision) else 8) * trained
    own_weights = weights // workers if stage == 3 else weights
    own_gradients = gradients // workers if stage >= 2 else gradients
    updated = (8 if stage == 3 and not _half(precision) else 12) * trained
    return own_weights + own_gradients + (0 if offload == "optimizer" else updated // workers)


def held_and_trained(shape: Shape, phases: Mapping[str, PhaseRecipe]) -> tuple[int, int]:
    """The parameters that are held, adapters with them, and the most that a phase trains."""
    counts = [trained_parameters(shape, phase) for phase in phases.values()]
    adapters = [
        of_phase for of_phase, phase in zip(counts, phases.values(), strict=True) if phase.trainable.lora is not None
    ]
    return shape.parameters + max(adapters, default=0), max(counts)


def trained_parameters(shape: Shape, phase: PhaseRecipe) -> int:
    """How many parameters a phase trains; of new rows that are not resolved yet, all rows."""
    trainable = Trainable(named="embeddings") if phase.trainable.named == "new_rows" else phase.trainable
    return shape.parameters if trainable == ALL else count(trained(trainable, shape))


def memory_bytes(
    parameters: int, precision: str = "fp32", offload: str = "none", *, trained: int | None = None
) -> dict[str, dict[str, int]]:
    """`state_bytes` of every stage, for WORKERS."""
    return {
        f"zero {stage}": {
            str(workers): state_bytes(
                parameters, stage, workers, trained=trained, precision=precision, offload=offload if stage else "none"
            )
            for workers in WORKERS
        }
        for stage in STAGES
    }


def layer_values(shape: Shape) -> int:
    """Numbers per token that one layer keeps for its backward pass.

    The two norms' inputs (of RMSNorm on a CPU, what is of norm 1) and outputs, 4C; queries, keys, values and what they
    mix to, 4E; of SwiGLU its gate, that gate's SiLU, the other half and the product, 4F, of GELU
    its input and output, 2F. What attention itself keeps does not grow with T · T.
    """
    kind = shape.architecture
    attention = 4 * shape.heads * shape.head_dim
    return 4 * shape.width + attention + shape.filter * (4 if kind.feedforward == "swiglu" else 2)


def activation_bytes(shape: Shape, phase: PhaseRecipe, engine: EngineRecipe) -> int:
    """Bytes of the activations of one micro-batch, as an estimate.

    All layers' values, or their inputs and one layer's values where activations are computed again; the logits and
    their gradient, which is made along with the loss; ALiBi's bias, heads · T² and once per window where documents do
    not see each other.
    """
    windows = max(1, engine.micro_batch_tokens // phase.seq_len)
    layers = (
        shape.layers * shape.width + layer_values(shape)
        if engine.activation_checkpointing
        else shape.layers * layer_values(shape)
    )
    each = 2 if _half(engine.precision) and engine.zero else 4
    per_token = (layers + 2 * shape.width + 2 * shape.padded_vocab) * each
    bias = 0
    if shape.architecture.position == "alibi":
        bias = shape.heads * phase.seq_len**2 * (1 if phase.packing == "concat" else windows)
    return windows * phase.seq_len * per_token + bias * each


def room(shape: Shape, phases: Mapping[str, PhaseRecipe], engine: EngineRecipe, *, gpus: int, bytes_each: int) -> Room:
    """Whether a run fits on `gpus` devices of `bytes_each` bytes, at every stage."""
    held, learned = held_and_trained(shape, phases)

    def activations(stage: int, **how: bool) -> int:
        settings = engine.model_copy(update={"zero": stage, **how})
        return max(activation_bytes(shape, phase, settings) for phase in phases.values())

    def needed(stage: int, workers: int) -> int:
        offload = engine.offload if stage else "none"
        return activations(stage) + state_bytes(
            held, stage, workers, trained=learned, precision=engine.precision, offload=offload
        )

    def least(stage: int) -> int | None:
        counts = (2**power for power in range(MOST_WORKERS.bit_length()))
        return next((workers for workers in counts if needed(stage, workers) <= bytes_each), None)

    stages = {
        f"zero {stage}": StageRoom(
            needed=needed(stage, gpus), missing=max(0, needed(stage, gpus) - bytes_each), least_gpus=least(stage)
        )
        for stage in STAGES
    }
    return Room(
        gpus=gpus,
        bytes_each=bytes_each,
        activations=activations(engine.zero),
        recomputed=activations(engine.zero, activation_checkpointing=True),
        stages=stages,
    )


def room_lines(found: Room) -> Iterator[str]:
    """For a person."""
    yield (
        f"  on {_devices(found.gpus)} of {gigabytes(found.bytes_each)}, with about {gigabytes(found.activations)} of "
        "activations"
    )
    for name, stage in found.stages.items():
        verdict = "fits" if not stage.missing else f"{gigabytes(stage.missing)} are missing; {_remedy(stage)}"
        yield f"    {name}    {gigabytes(stage.needed)} each: {verdict}"


def shortfall(found: Room, stage: int) -> str | None:
    """What to say if a run does not fit at its own stage: how much is missing, and what would do; None if it fits."""
    own = found.stages[f"zero {stage}"]
    if not own.missing:
        return None
    return (
        f"at zero {stage} each of {_devices(found.gpus)} needs {gigabytes(own.needed)} and has "
        f"{gigabytes(found.bytes_each)}: {gigabytes(own.missing)} are missing; {_remedies(found, f'zero {stage}')}"
    )


def _remedies(found: Room, name: str) -> str:
    """What would do: another stage, activations computed again (at the run's own stage first), more devices."""
    own, spared = found.stages[name], found.activations - found.recomputed
    would_do = [f"engine {{{_setting(other)}}}" for other, stage in found.stages.items() if not stage.missing][:1]
    would_do += [
        f"engine {{{_setting(other)}, activation_checkpointing: true}}"
        for other, stage in sorted(found.stages.items(), key=lambda item: item[0] != name)
        if stage.missing and stage.needed - spared <= found.bytes_each
    ][:1]
    if own.least_gpus is not None:
        would_do.append(f"--gpus {own.least_gpus}")
    if not would_do and (most_shared := found.stages["zero 3"].least_gpus) is not None:
        would_do.append(f"engine {{zero: 3}} with --gpus {most_shared}")
    if would_do:
        return f"{' or '.join(would_do)} would do"
    return (
        "neither another stage nor more of them would do: lower engine.micro_batch_tokens, set "
        "engine.activation_checkpointing, or choose a smaller --size"
    )


def _setting(stage: str) -> str:
    return stage.replace(" ", ": ")


def _devices(gpus: int) -> str:
    return f"{gpus} GPU{'s' * (gpus > 1)}"


def _remedy(stage: StageRoom) -> str:
    return "no number of GPUs would do" if stage.least_gpus is None else f"{_devices(stage.least_gpus)} would do"


def gigabytes(size: int) -> str:
    """A number of bytes for a person."""
    return f"{size / GB:,.2f} GB" if size >= GB // 10 else f"{size / 10**6:,.1f} MB"
