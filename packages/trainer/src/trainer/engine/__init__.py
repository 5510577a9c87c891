"""The one door to DeepSpeed: step, gather, scatter, close, and a word with the other ranks.

    StepBatch ─► micro-batches ─► forward, backward ─► [reduce over ranks] ─► clip ─► AdamW ─► losses, gradient norm

ZeRO 0 to 3, fp32 or bf16, the optimiser in the device's memory or the host's. State goes in and out by parameter name,
as whole tensors in fp32 (`engine.state`), so nothing outside knows how it is partitioned. Everything that touches other
ranks is collective: all of them call it, in the same order.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from manifest.errors import InputError
from trainer.data.loader import StepBatch
from trainer.engine.masters import Masters
from trainer.engine.release import release
from trainer.engine.state import MOMENTS, State
from trainer.loss import window_losses
from trainer.model.decoder import Decoder
from trainer.optimizer import AdamW, adamw, parameter_groups
from trainer.peak import peak_flops
from trainer.place import Place, process_environment
from trainer.recipe import EngineRecipe, OptimizerRecipe

__all__ = ["MOMENTS", "Engine", "StepResult", "join", "leave"]


@dataclass(frozen=True)
class StepResult:
    """losses (N,): nats over the targets of each row that this rank read. gradient_norm: global, before clipping."""

    losses: Tensor
    gradient_norm: float


def _deepspeed() -> ModuleType:
    """DeepSpeed, quiet, and without the extension that it would compile on a CPU."""
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else it probes, and warns
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"(torch|deepspeed)\b")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    import deepspeed

    deepspeed.utils.logger.setLevel(logging.WARNING)
    # Its shared-memory collectives are built by a C++ compiler at start-up and fail where there is none; gloo does.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    tested = deepspeed.runtime.zero.utils.ZERO_SUPPORTED_OPTIMIZERS
    if AdamW not in tested:  # it goes by the very class, and ours takes torch's steps
        tested.append(AdamW)
    _keep_zero_at_stage_1(deepspeed)
    return deepspeed  # type: ignore[no-any-return]


def _keep_zero_at_stage_1(deepspeed: ModuleType) -> None:
    """Gradients are summed in fp32 under bf16 by ZeRO's own optimiser at stage 1 too.

    DeepSpeed 0.19.8 has that arithmetic there, and takes it where the optimiser is offloaded; else it would take
    another class (BF16_Optimizer), which holds masters and moments in another way.
    """
    engine = deepspeed.runtime.engine
    chosen = engine.DeepSpeedEngine._do_optimizer_sanity_check
    if chosen.__name__ == "_choose_zero":
        return

    def _choose_zero(self: Any, optimizer: Any) -> Any:
        found = chosen(self, optimizer)
        return engine.ZERO_OPTIMIZATION if found == engine.BFLOAT16 and self.zero_optimization() else found

    engine.DeepSpeedEngine._do_optimizer_sanity_check = _choose_zero


def join(place: Place) -> None:
    """Meets the other ranks. Once per process, before the first Engine."""
    os.environ.update(place.environment())
    torch.set_num_threads(int(process_environment()["OMP_NUM_THREADS"]))
    cuda = torch.cuda.is_available()
    if cuda:
        _require_device(place)
        torch.cuda.set_device(place.local_rank)
    _deepspeed().init_distributed("nccl" if cuda else "gloo", verbose=False)


def _require_device(place: Place) -> None:
    if place.local_rank >= (devices := torch.cuda.device_count()):
        raise InputError(
            f"worker {place.rank} has no GPU: this machine has {devices}, and each worker wants its own; give "
            f"--workers local:{devices}"
        )


def leave() -> None:
    """Parts from the other ranks."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _resolved(settings: EngineRecipe) -> Literal["fp32", "bf16"]:
    """What `auto` is on this device; zero 0, which has one copy of the weights, keeps them in fp32."""
    if settings.precision != "auto":
        return settings.precision
    return "bf16" if settings.zero and torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "fp32"


def shared_out(settings: EngineRecipe, world: int) -> EngineRecipe:
    """The settings for so many workers: one alone in fp32 has nobody to share with, so each stage is stage 0, without
    the copies of weights and gradients that the others keep.
    """
    if world == 1 and settings.offload == "none" and _resolved(settings) == "fp32":
        return settings.model_copy(update={"zero": 0})
    return settings


class Engine:
    """A decoder under training: those of its parameters that require a gradient. The others stay as they are.

    stage: of ZeRO. precision: fp32 or bf16.
    """

    def __init__(self, decoder: Decoder, optimizer: OptimizerRecipe, settings: EngineRecipe) -> None:
        deepspeed = _deepspeed()
        self.rank, self.world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.device = (
            torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        )
        self.stage, self._micro_batch_tokens = settings.zero, settings.micro_batch_tokens
        self.precision = _resolved(settings)
        self._weight_decay = self._usual_decay = optimizer.weight_decay
        self._clip = optimizer.clip
        groups = parameter_groups(decoder, decoder.shape, optimizer)
        self._hyperparameters = [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in groups]
        # DeepSpeed rounds the weights to 16 bits, and makes its masters of what is left of them.
        rounded = dict(decoder.named_parameters()) if self.precision == "bf16" else {}
        begun = {name: held.detach().clone() for name, held in rounded.items() if held.requires_grad}
        masters = Masters([name for name, held in rounded.items() if not held.requires_grad], self.device)
        for name, held in rounded.items():
            if name in masters:
                masters.set(name, held)
        self._deepspeed, _, _, _ = deepspeed.initialize(
            model=decoder, optimizer=adamw(groups, optimizer), config=self._config(decoder, settings, optimizer.clip)
        )
        if self.stage == 0 and self.world == 1:  # it would copy all gradients to sum them with nobody's
            self._deepspeed.enable_backward_allreduce = False
        self._state = State(self._deepspeed, self.stage, masters)
        for name, value in begun.items():
            self.scatter(name, value)

    def _config(self, decoder: Decoder, settings: EngineRecipe, clip: float) -> dict[str, Any]:
        """DeepSpeed's settings. It is told of one micro-batch per step; `step` says itself where the step ends."""
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": clip if self.stage else 0.0,
            "steps_per_print": 10**9,
            "zero_optimization": {
                "stage": self.stage,
                # The buffer for gradients in flight; its default is 2 GB whatever the model.
                "reduce_bucket_size": min(5 * 10**8, decoder.shape.parameters),
                **({"offload_optimizer": {"device": "cpu"}} if settings.offload == "optimizer" else {}),
            },
            # Weights and activations of 16 bits; what AdamW steps on, and what is saved, stays fp32.
            "bf16": {"enabled": self.precision == "bf16"},
            # In 16 bits the sum over micro-batches would be rounded at each of them.
            "data_types": {"grad_accum_dtype": "fp32"},
            # Stage 1 meets the other ranks once per step, with the sum; 2 and 3 with each micro-batch's 16 bits.
            **({"communication_data_type": "fp32"} if self.stage == 1 else {}),
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }

    def step(self, batch: StepBatch, rate: float, weight_decay: float | None = None) -> StepResult:
        """Learns from one step at the learning rate `rate` and `weight_decay` (None: the recipe's). Collective.

        A step without a single target on any rank has a gradient of 0: AdamW still takes it, with what it remembers.
        """
        losses = self.accumulate(batch, rate, weight_decay)
        return StepResult(losses, self.update())

    def accumulate(self, batch: StepBatch, rate: float, weight_decay: float | None = None) -> Tensor:
        """The first half of `step`: makes the gradients. Returns the losses, as in StepResult. Collective."""
        self._weight_decay = self._usual_decay if weight_decay is None else weight_decay
        for group in self._state.inner.param_groups:
            group["lr"] = rate * group["lr_multiplier"]
            group["weight_decay"] = self._weight_decay * group["decay_multiplier"]
        rows, seq_len = batch.tokens.shape
        size = max(1, self._micro_batch_tokens // seq_len)
        targets = max(1.0, float(self.sum(torch.tensor(batch.weights.sum(dtype=np.float64)))))
        losses = []
        for first in range(0, rows, size):
            self._deepspeed.set_gradient_accumulation_boundary(first + size >= rows)
            losses.append(self._forward_backward(batch, slice(first, first + size), targets))
        return torch.cat(losses)

    def update(self, holds: Callable[[float], bool] = lambda _: False) -> float:
        """The second half: AdamW's step. Returns the norm of the gradient, and forgets that. Collective.

        holds: asked with the norm whether to leave the step out: weights, moments and counter stay. The same on all
        ranks.
        """
        inner, zero = self._state.inner, self._deepspeed.optimizer
        # At stage 0 DeepSpeed reports no norm; the reduced gradients are there until its step, which clips them.
        plain = self._state.gradient_norm() if self.stage == 0 else None
        if plain is not None:
            inner.clip(plain, self._clip)
        # At the others it knows the norm by the time it calls AdamW, and not before.
        inner.hold = lambda: holds(float(zero._global_grad_norm) if plain is None else plain)
        self._deepspeed.step()
        inner.hold, inner.held = None, False
        return float(self._deepspeed.get_global_grad_norm()) if plain is None else plain

    def _forward_backward(self, batch: StepBatch, rows: slice, targets: float) -> Tensor:
        tokens_BT = torch.from_numpy(batch.tokens[rows]).to(self.device)
        weights_BT = torch.tensor(batch.weights[rows], device=self.device)
        inputs = [tokens_BT[:, :-1]]
        if batch.documents is not None:
            inputs.append(torch.from_numpy(batch.documents[rows]).to(self.device)[:, :-1])
        # DeepSpeed averages gradients over ranks; times `world` makes that the sum of every rank's part.
        share = self.world / targets
        loss_B = window_losses(self._deepspeed(*inputs), tokens_BT[:, 1:], weights_BT * share)
        self._deepspeed.backward(loss_B.sum())
        return loss_B.detach() / share

    def rates(self) -> dict[str, float]:
        """The learning rate of each group in the last step."""
        return {made["name"]: float(held["lr"]) for made, held in self._grouped()}

    def square_of_weights(self) -> float:
        """This rank's part of the sum of the squares of all trained parameters."""
        return self._state.square() / (self.world if self.stage == 0 else 1)

    def peak_flops(self) -> float:
        """FLOP/s of all ranks' matrix products, in the precision of the forward pass. Collective."""
        dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        own = peak_flops(self.device.type, dtype)
        return float(self.sum(torch.tensor(own, dtype=torch.float64)))

    def reset_optimizer(self) -> None:
        """Forgets all moments and counts AdamW's steps from 0 again."""
        self._state.reset()

    def parameters(self) -> dict[str, torch.Size]:
        """The shape of every parameter, by name."""
        return self._state.shapes()

    def trained(self) -> list[str]:
        """The names of the parameters that are trained, in the order of `parameters`. The others have no moments."""
        return self._state.trained()

    def gather(self, name: str, moment: str | None = None) -> Tensor:
        """A parameter, or one of its moments, whole, in fp32, on the CPU. Collective."""
        return self._state.gather(name, moment)

    def scatter(self, name: str, value: Tensor, moment: str | None = None) -> None:
        """Sets a parameter, or one of its moments, from the whole tensor. Every rank gives the same. Collective."""
        self._state.scatter(name, value, moment)

    def set_optimizer_steps(self, steps: int) -> None:
        """Sets AdamW's step counter of every parameter."""
        self._state.set_steps(steps)

    def optimizer_steps(self) -> int:
        """AdamW's step counter, which is the same for all parameters."""
        return self._state.steps()

    def hyperparameters(self) -> list[dict[str, Any]]:
        """Name, rate multiplier, decay of each group as the recipe has them; checked against what the optimiser has."""
        for made, held in self._grouped():
            expected = made | {"weight_decay": self._weight_decay * made["decay_multiplier"]}
            found = {key: held[key] for key in made}
            assert found == expected, f"a group of the optimiser has changed: {found}, not {expected}"
        return [
            {key: made[key] for key in ("name", "lr_multiplier", "weight_decay")}
            | {"betas": list(held["betas"]), "eps": held["eps"]}
            for made, held in self._grouped()
        ]

    def _grouped(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return list(zip(self._hyperparameters, self._state.inner.param_groups, strict=True))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks. Collective."""
        total = values.to(self.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.cpu()

    def any(self, value: bool) -> bool:
        """Whether it is so on any rank. Collective."""
        return bool(self.sum(torch.tensor(float(value))) > 0)

    def collect(self, text: str) -> list[str]:
        """What every rank said, by rank. Collective."""
        said = [""] * self.world
        torch.distributed.all_gather_object(said, text)
        return said

    def close(self) -> None:
        """Gives back all that it holds: no method may be called afterwards."""
        if vars(self._deepspeed):
            self._deepspeed.destroy()
            release(self._deepspeed)
            self._state.forget()
