"""Parameters → groups with their own learning rate and decay → AdamW.

Groups, so that muP's rates (model/mup.py) and the rule "no decay on norms and biases" hold at every stage of ZeRO.
Frozen parameters are in none, and what has no trained one is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trainer.model.mup import Role, learning_rate_multiplier, role_of
from trainer.model.shape import Shape
from trainer.recipe import OptimizerRecipe

GROUPS: dict[str, tuple[Role, ...]] = {
    "hidden": (Role.HIDDEN, Role.ATTENTION_OUTPUT),
    "feedforward_output": (Role.FEEDFORWARD_OUTPUT,),
    "embedding": (Role.EMBEDDING,),
    "norms_and_biases": (Role.GAIN, Role.BIAS),
    "lora_a": (Role.LORA_A,),
    "lora_a_of_feedforward_output": (Role.LORA_A_OF_FEEDFORWARD_OUTPUT,),
    "lora_b": (Role.LORA_B,),
}


def parameter_groups(decoder: nn.Module, shape: Shape, recipe: OptimizerRecipe) -> list[dict[str, Any]]:
    """The groups of torch's AdamW, in the order of GROUPS, each with `name`, `lr_multiplier` and `decay_multiplier`.

    AdamW decays by lr · weight_decay, so a group with a lower rate also decays less; BTLM was trained so.
    """
    parameters = {name: held for name, held in decoder.named_parameters() if held.requires_grad}
    groups = [
        {
            "name": group,
            "params": [parameter for name, parameter in parameters.items() if role_of(name) in roles],
            "lr": 0.0,
            "lr_multiplier": learning_rate_multiplier(shape, roles[0]),
            "weight_decay": decays * recipe.weight_decay,
            "decay_multiplier": decays,
        }
        for group, roles in GROUPS.items()
        for decays in [0.0 if group == "norms_and_biases" else 1.0]
    ]
    return [group for group in groups if group["params"]]


class AdamW(torch.optim.AdamW):
    """torch's AdamW, which leaves steps out while `held` is set: no weight, moment or counter changes.

    hold: says whether it is, asked at the next step of the first group.
    """

    held = False
    hold: Callable[[], bool] | None = None
    grad_scale: torch.Tensor | None = None  # what torch's fused step divides gradients by as it reads them

    def clip(self, norm: float, most: float) -> None:
        """Has the next step take gradients of this norm as if it were `most`, where it is more."""
        self.grad_scale = torch.tensor((norm + 1e-6) / most) if norm + 1e-6 > most else None

    def step(self, closure: Any = None) -> Any:
        """A step, unless it is held."""
        if self.hold is not None:
            self.held, self.hold = self.hold(), None
        return None if self.held else super().step(closure)


def adamw(groups: list[dict[str, Any]], recipe: OptimizerRecipe) -> AdamW:
    """torch's AdamW, in one pass over the memory; rate and decay of each group are set before every step."""
    return AdamW(groups, lr=0.0, betas=recipe.betas, eps=recipe.eps, fused=True)
