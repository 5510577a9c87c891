"""Gives back what an engine holds, which DeepSpeed does not.

DeepSpeed 0.19.8 keeps a destroyed engine reachable at stage 3: hooks of autograd, which Python does not see through as
it collects, hold functions that hold the optimiser, and that holds all. What stays is emptied here, so that an engine
costs nothing once it is closed, however many a process makes: one for each leg, and for each time that a run goes back.
"""

from __future__ import annotations

import gc
from typing import Any

import torch
from torch.nn import Module, Parameter

PARTS = ("ds_tensor", "ds_secondary_tensor", "grad_accum", "_hp_mapping", "_hp_grad", "_z3_optimizer")
"""What DeepSpeed hangs on parameters."""


def release(engine: Any) -> None:
    """Empties a DeepSpeed engine that is destroyed: its parameters, AdamW's state, ZeRO's buffers."""
    module, optimizer = engine.module, engine.optimizer
    inner = getattr(optimizer, "optimizer", optimizer)
    for parameter in [*module.parameters(), *_stepped_on(inner)]:
        _empty(parameter)
    inner.state.clear()
    inner.param_groups.clear()
    offload = getattr(optimizer, "parameter_offload", None)
    for held in (offload, optimizer):
        if held is not None and held is not inner:
            vars(held).clear()
    _unhook(module)
    vars(engine).clear()
    gc.collect()


def _stepped_on(inner: torch.optim.Optimizer) -> list[Parameter]:
    return [parameter for group in inner.param_groups for parameter in group["params"]]


def _empty(parameter: Any) -> None:
    parameter.grad = None
    parameter.data = torch.empty(0, dtype=parameter.dtype, device=parameter.device)
    for name in PARTS:
        if getattr(parameter, name, None) is not None:
            setattr(parameter, name, None)


def _unhook(module: Module) -> None:
    for part in module.modules():
        for hooks in (part._forward_hooks, part._forward_pre_hooks, part._backward_hooks, part._backward_pre_hooks):
            hooks.clear()
