"""A model's parameters and AdamW's moments under DeepSpeed: whole tensors in fp32 by name, at every stage of ZeRO.

    stage   where AdamW's part of a parameter is
    0       in the optimiser's state of the parameter itself
    1, 2    in a flat fp32 partition per group; DeepSpeed links each parameter to its piece of it
    3       in flat fp32 partitions too, and the module's own parameters are partitioned beside them

DeepSpeed 0.19.8 leaves three things to its caller, and they are done here. Its link at stages 1 and 2 is made once, for
all groups, so all must have their state by then. Setting a master in fp32 leaves the module's copy as it was. And at
stage 3 its setter of whole tensors reads past the end of a tensor that the ranks do not share evenly.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from trainer.engine.masters import Masters
from trainer.optimizer import AdamW

ROW = 1024
MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW remembers of each parameter, besides its step counter."""


class State:
    """The parameters of a module that DeepSpeed has initialised, and what AdamW remembers of those that it trains.

    masters: of those that are frozen, where the module computes in 16 bits.
    """

    def __init__(self, deepspeed_engine: Any, stage: int, masters: Masters) -> None:
        self._engine, self._stage = deepspeed_engine, stage
        self._parameters: dict[str, Parameter] = dict(deepspeed_engine.module.named_parameters())
        self._masters = masters
        self._fill()

    @property
    def inner(self) -> AdamW:
        """AdamW, under ZeRO's wrapper if there is one."""
        optimizer = self._engine.optimizer
        inner: AdamW = optimizer if self._stage == 0 else optimizer.optimizer
        return inner

    def forget(self) -> None:
        """Holds no parameter any more."""
        self._parameters = {}
        self._masters.forget()

    def shapes(self) -> dict[str, torch.Size]:
        """The shape of every parameter, by name."""
        return {name: getattr(held, "ds_shape", held.shape) for name, held in self._parameters.items()}

    def trained(self) -> list[str]:
        """The names of the parameters that AdamW trains."""
        return [name for name, held in self._parameters.items() if held.requires_grad]

    def gradient_norm(self) -> float:
        """Stage 0: the norm of all reduced gradients, before they are clipped."""
        norms = [torch.linalg.vector_norm(held.grad) for held in self._parameters.values() if held.grad is not None]
        return float(torch.linalg.vector_norm(torch.stack(norms)))

    def _held(self) -> Iterator[Tensor]:
        """The tensors that AdamW steps on, on this rank."""
        if self._stage == 3:
            yield from self._engine.optimizer.fp32_partitioned_groups_flat  # it puts them into their groups as it steps
        else:
            for group in self.inner.param_groups:
                yield from group["params"]

    @torch.no_grad()
    def square(self) -> float:
        """The sum of the squares of the trained parameters that this rank steps on: at stage 0 all, else its own."""
        held = self._own_parts() if self._stage == 3 else self._held()
        return float(torch.stack([_square(tensor) for tensor in held]).sum())

    def _own_parts(self) -> Iterator[Tensor]:
        """Stage 3: this rank's part of each trained parameter, without what fills the last part up."""
        from deepspeed.utils import safe_get_local_fp32_param

        rank, shapes = torch.distributed.get_rank(), self.shapes()
        for name in self.trained():
            part: Tensor = safe_get_local_fp32_param(self._parameters[name]).flatten()
            yield part[: max(0, shapes[name].numel() - rank * part.numel())]

    def _fill(self) -> None:
        """Gives every parameter the state that AdamW would make at its first step: zeros."""
        for held in self._held():
            moments = {moment: torch.zeros_like(held, memory_format=torch.preserve_format) for moment in MOMENTS}
            self.inner.state[held] = {"step": torch.tensor(0.0), **moments}
        if self._stage in (1, 2):
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def reset(self) -> None:
        """Forgets all moments and counts AdamW's steps from 0 again."""
        for state in self.inner.state.values():
            for moment in MOMENTS:
                state[moment].zero_()
        self.set_steps(0)

    def set_steps(self, steps: int) -> None:
        """Sets AdamW's step counter of every parameter."""
        for state in self.inner.state.values():
            state["step"] = torch.tensor(float(steps))  # a tensor of its own: a shared one would count double

    def steps(self) -> int:
        """AdamW's step counter, which is the same for all parameters."""
        counters = {int(state["step"]) for state in self.inner.state.values()}
        assert len(counters) == 1, f"AdamW's step counters differ: {sorted(counters)}"
        return counters.pop()

    def gather(self, name: str, moment: str | None = None) -> Tensor:
        """A parameter, or one of its moments, whole, on the CPU. Collective."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        parameter = self._parameters[name]
        if moment is not None and self._stage > 0:
            found = safe_get_full_optimizer_state(parameter, moment)
        elif moment is not None:
            found = self.inner.state[parameter][moment]
        elif self._stage > 0 and parameter.requires_grad:
            found = safe_get_full_fp32_param(parameter)
        elif name in self._masters:
            return self._frozen(name, parameter)
        else:
            with self._whole(parameter):
                return parameter.detach().to("cpu", torch.float32, copy=True)
        whole: Tensor = found.to("cpu", copy=True)
        return whole

    def _frozen(self, name: str, parameter: Parameter) -> Tensor:
        """The master of a frozen parameter; or what the module has, if that is not its rounding any more."""
        master = self._masters.get(name, self.shapes()[name])
        with self._whole(parameter):
            held = parameter.detach().cpu()
        return master if torch.equal(held, master.to(held.dtype)) else held.float()

    @torch.no_grad()
    def scatter(self, name: str, value: Tensor, moment: str | None = None) -> None:
        """Sets a parameter, or one of its moments, from the whole tensor. Every rank gives the same. Collective."""
        parameter = self._parameters[name]
        if name in self._masters:
            self._masters.set(name, value)
        value = value.to(parameter.device)
        if moment is None:
            with self._whole(parameter, written=True):
                parameter.copy_(value)  # what the next forward pass reads
            if self._stage == 0 or not parameter.requires_grad:
                return
        if self._stage == 0:
            self.inner.state[parameter][moment].copy_(value)
        else:
            self._set_partition(parameter, value, moment)  # what the next step starts from

    def _set_partition(self, parameter: Parameter, value: Tensor, moment: str | None) -> None:
        from deepspeed import utils

        if self._stage == 3:
            value = self._own(value)
            if moment is None:
                utils.safe_set_local_fp32_param(parameter, value)
            else:
                utils.safe_set_local_optimizer_state(parameter, value, moment)
        elif moment is None:
            utils.safe_set_full_fp32_param(parameter, value)
        else:
            utils.safe_set_full_optimizer_state(parameter, value, moment)

    def _own(self, value: Tensor) -> Tensor:
        """This rank's part of a tensor at stage 3: one of `world` equal ones, the last filled up with zeros."""
        world = torch.distributed.get_world_size()
        size = -(-value.numel() // world)
        padded = torch.nn.functional.pad(value.flatten(), (0, size * world - value.numel()))
        return padded.narrow(0, size * torch.distributed.get_rank(), size)

    def _whole(self, parameter: Parameter, *, written: bool = False) -> Any:
        """A context in which the module's parameter is whole."""
        from deepspeed import zero

        return zero.GatheredParameters([parameter], modifier_rank=0 if written else None, enabled=self._stage == 3)


def _square(tensor: Tensor) -> Tensor:
    """The sum of the squares of a tensor, in fp64: of rows in fp32, which is ten times as fast on a CPU as all in fp64,
    and as exact as the rows are short.
    """
    flat = tensor.flatten()
    whole = flat.numel() - flat.numel() % ROW
    rows = torch.linalg.vector_norm(flat[:whole].view(-1, ROW), dim=1)
    return torch.cat([rows, torch.linalg.vector_norm(flat[whole:])[None]]).double().square().sum()
