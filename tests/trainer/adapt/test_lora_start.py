"""LoRA from a model of another program's, and back to it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.trainer.adapt.conftest import PHASES, Mixtures, Prepare
from transformers import AutoModelForCausalLM

from trainer.checkpoint import load_model
from trainer.huggingface.export_adapter import export_adapter
from trainer.loop import train

pytestmark = pytest.mark.usefixtures("process_group")

TOKENS = torch.tensor([[5, 80, 17, 299, 3, 250, 33]])
LORA = {"lora": {"rank": 2, "alpha": 8}}


def test_what_was_learned_beside_a_llama_goes_beside_it_in_peft(
    llama: Path, mixtures: Mixtures, prepare: Prepare, tmp_path: Path
) -> None:
    phases = {name: phase | {"trainable": LORA} for name, phase in PHASES.items()}
    store, run = prepare(llama, mixtures.same, phases=phases)
    train(store, run, lambda: False)
    last = store.where(run.checkpoint_path(run.timeline.total_steps))
    export_adapter(last, tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(llama, dtype="float32")
    with torch.no_grad():
        before = base(TOKENS).logits.clone()
        adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()(TOKENS).logits
        merged = load_model(last)[0](TOKENS)[..., : adapted.shape[-1]]
        begun = load_model(store.where(run.checkpoint_path(0)))[0](TOKENS)[..., : adapted.shape[-1]]
    torch.testing.assert_close(adapted, merged, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(begun, before, atol=1e-4, rtol=1e-4)
    assert (adapted - before).abs().max().item() > 0.01
