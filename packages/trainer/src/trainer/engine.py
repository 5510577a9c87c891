"""The one door to DeepSpeed: step, gather, scatter, close, and a word with the other ranks.

    StepBatch ─► micro-batches ─► forward, backward ─► [reduce over ranks] ─► clip ─► AdamW ─► losses, gradient norm

ZeRO 0 and 1, fp32. State goes in and out by parameter name, as whole tensors, so nothing outside knows how it is
partitioned. Everything that touches other ranks is collective: all of them call it, in the same order.
"""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor

from trainer.data.loader import StepBatch
from trainer.loss import window_losses
from trainer.model.decoder import Decoder
from trainer.optimizer import adamw, parameter_groups
from trainer.place import Place, process_environment
from trainer.recipe import EngineRecipe, OptimizerRecipe

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW remembers of each parameter, besides its step counter."""


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
    return deepspeed  # type: ignore[no-any-return]


def join(place: Place) -> None:
    """Meets the other ranks. Once per process, before the first Engine."""
    os.environ.update(place.environment())
    torch.set_num_threads(int(process_environment()["OMP_NUM_THREADS"]))
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(place.local_rank)
    _deepspeed().init_distributed("nccl" if cuda else "gloo", verbose=False)


def leave() -> None:
    """Parts from the other ranks."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class Engine:
    """A decoder under training."""

    def __init__(self, decoder: Decoder, optimizer: OptimizerRecipe, settings: EngineRecipe) -> None:
        deepspeed = _deepspeed()
        self.rank, self.world = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self.device = (
            torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        )
        self._stage, self._micro_batch_tokens = settings.zero, settings.micro_batch_tokens
        groups = parameter_groups(decoder, decoder.shape, optimizer)
        self._hyperparameters = [{k: v for k, v in group.items() if k not in ("params", "lr")} for group in groups]
        self._deepspeed, _, _, _ = deepspeed.initialize(
            model=decoder, optimizer=adamw(groups, optimizer), config=self._config(decoder, optimizer.clip)
        )
        self._parameters: dict[str, torch.nn.Parameter] = dict(self._deepspeed.module.named_parameters())
        self._make_optimizer_state()

    def _config(self, decoder: Decoder, clip: float) -> dict[str, Any]:
        """DeepSpeed's settings. It is told of one micro-batch per step; `step` says itself where the step ends."""
        return {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            "gradient_clipping": clip,
            "steps_per_print": 10**9,
            "zero_optimization": {
                "stage": self._stage,
                # The buffer for gradients in flight; its default is 2 GB whatever the model.
                "reduce_bucket_size": min(5 * 10**8, decoder.shape.parameters),
            },
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
        }

    def step(self, batch: StepBatch, rate: float) -> StepResult:
        """Learns from one step at the learning rate `rate`. Collective.

        A step without a single target on any rank has a gradient of 0: AdamW still takes it, with what it remembers.
        """
        for group in self._inner.param_groups:
            group["lr"] = rate * group["lr_multiplier"]
        rows, seq_len = batch.tokens.shape
        size = max(1, self._micro_batch_tokens // seq_len)
        targets = max(1.0, float(self.sum(torch.tensor(batch.weights.sum(dtype=np.float64)))))
        losses = []
        for first in range(0, rows, size):
            self._deepspeed.set_gradient_accumulation_boundary(first + size >= rows)
            losses.append(self._forward_backward(batch, slice(first, first + size), targets))
        # At stage 0 DeepSpeed reports no norm; the reduced gradients are there until its step.
        norm = self._gradient_norm() if self._stage == 0 else None
        self._deepspeed.step()
        return StepResult(torch.cat(losses), float(self._deepspeed.get_global_grad_norm()) if norm is None else norm)

    def _forward_backward(self, batch: StepBatch, rows: slice, targets: float) -> Tensor:
        tokens_BT = torch.from_numpy(batch.tokens[rows]).to(self.device)
        weights_BT = torch.from_numpy(batch.weights[rows]).to(self.device)
        inputs = [tokens_BT[:, :-1]]
        if batch.documents is not None:
            inputs.append(torch.from_numpy(batch.documents[rows]).to(self.device)[:, :-1])
        loss_B = window_losses(self._deepspeed(*inputs), tokens_BT[:, 1:], weights_BT)
        # DeepSpeed averages gradients over ranks; times `world` makes that the sum of every rank's part.
        self._deepspeed.backward(loss_B.sum() * (self.world / targets))
        return loss_B.detach()

    def _gradient_norm(self) -> float:
        norms = [torch.linalg.vector_norm(p.grad) for p in self._parameters.values() if p.grad is not None]
        return float(torch.linalg.vector_norm(torch.stack(norms)))

    @property
    def _inner(self) -> torch.optim.AdamW:
        """torch's AdamW, under ZeRO's wrapper if there is one."""
        optimizer = self._deepspeed.optimizer
        inner: torch.optim.AdamW = optimizer if self._stage == 0 else optimizer.optimizer
        return inner

    def _make_optimizer_state(self) -> None:
        """Gives every parameter the state that AdamW would make at its first step: zeros.

        So state can be read and written at any time. DeepSpeed links a parameter to its part of the state once, for all
        groups; that must happen when all of them have one.
        """
        for group in self._inner.param_groups:
            for held in group["params"]:
                moments = {moment: torch.zeros_like(held, memory_format=torch.preserve_format) for moment in MOMENTS}
                self._inner.state[held] = {"step": torch.tensor(0.0), **moments}
        if self._stage > 0:
            self._deepspeed.optimizer._hp_optimizer_states_linked = False
            self._deepspeed.optimizer._lazy_init_hp_params_optimizer_state()

    def reset_optimizer(self) -> None:
        """Forgets all moments and counts AdamW's steps from 0 again."""
        for state in self._inner.state.values():
            for moment in MOMENTS:
                state[moment].zero_()
        self.set_optimizer_steps(0)

    def parameters(self) -> dict[str, torch.Size]:
        """The shape of every parameter, by name."""
        return {name: parameter.shape for name, parameter in self._parameters.items()}

    def gather(self, name: str, moment: str | None = None) -> Tensor:
        """A parameter, or one of its moments, whole, on the CPU. Collective."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        parameter = self._parameters[name]
        if self._stage == 0:
            found = parameter.detach() if moment is None else self._inner.state[parameter][moment]
        elif moment is None:
            found = safe_get_full_fp32_param(parameter)
        else:
            found = safe_get_full_optimizer_state(parameter, moment)
        return found.to("cpu", copy=True)

    @torch.no_grad()
    def scatter(self, name: str, value: Tensor, moment: str | None = None) -> None:
        """Sets a parameter, or one of its moments, from the whole tensor. Every rank gives the same."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_full_optimizer_state

        parameter = self._parameters[name]
        value = value.to(parameter.device)
        if moment is not None and self._stage == 0:
            self._inner.state[parameter][moment].copy_(value)
        elif moment is not None:
            safe_set_full_optimizer_state(parameter, value, moment)
        else:
            parameter.copy_(value)  # what the next forward pass reads
            if self._stage > 0:
                safe_set_full_fp32_param(parameter, value)  # what the next step starts from

    def set_optimizer_steps(self, steps: int) -> None:
        """Sets AdamW's step counter of every parameter."""
        for state in self._inner.state.values():
            state["step"] = torch.tensor(float(steps))  # a tensor of its own: a shared one would count double

    def optimizer_steps(self) -> int:
        """AdamW's step counter, which is the same for all parameters."""
        counters = {int(state["step"]) for state in self._inner.state.values()}
        assert len(counters) == 1, f"AdamW's step counters differ: {sorted(counters)}"
        return counters.pop()

    def hyperparameters(self) -> list[dict[str, Any]]:
        """Name, rate multiplier, decay of each group, as the recipe has them and as the optimiser does now."""
        held = [{key: group[key] for key in made} for made, group in self._grouped()]
        assert held == self._hyperparameters, f"the optimiser's groups have changed: {held}"
        return [{**group, "betas": list(inner["betas"]), "eps": inner["eps"]} for group, inner in self._grouped()]

    def _grouped(self) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        return list(zip(self._hyperparameters, self._inner.param_groups, strict=True))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks. Collective."""
        total = values.to(self.device, copy=True)
        torch.distributed.all_reduce(total)
        return total.cpu()

    def collect(self, text: str) -> list[str]:
        """What every rank said, by rank. Collective."""
        said = [""] * self.world
        torch.distributed.all_gather_object(said, text)
        return said

    def close(self) -> None:
        """Gives DeepSpeed's hooks and buffers back."""
        self._deepspeed.destroy()
