"""The same model as LlamaForCausalLM under the Trainer of Hugging Face, as its documentation has it.

    python -m bench.train.hf CASE.json ROWS.jsonl

One process, or several under torch.distributed.run. Its loss is logged in every step, as Winnow's is; nothing is saved.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, SequentialSampler
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from bench.train.case import Case, read_case
from trainer.sizes import resolve


class Windows(Dataset[dict[str, torch.Tensor]]):
    """The windows of all steps, one after the other."""

    def __init__(self, case: Case) -> None:
        self._windows = np.load(case.windows, mmap_mode="r").reshape(-1, case.seq_len)

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        tokens_T = torch.from_numpy(np.array(self._windows[number]))
        return {"input_ids": tokens_T, "labels": tokens_T}


class InOrder(Trainer):  # type: ignore[misc]
    """A Trainer that reads what Winnow reads, in that order."""

    def _get_train_sampler(self, *_: Any, **__: Any) -> SequentialSampler:
        assert self.train_dataset is not None
        return SequentialSampler(self.train_dataset)


class Rows(TrainerCallback):  # type: ignore[misc]
    """Writes when each step ended, and the losses that were logged."""

    def __init__(self, file: Path) -> None:
        self._out = file.open("w")

    def on_step_end(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        self._write({"step": state.global_step - 1, "at": time.time()})

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self._write({"step": state.global_step - 1, "loss": logs["loss"]})

    def _write(self, row: dict[str, Any]) -> None:
        self._out.write(json.dumps(row) + "\n")
        self._out.flush()


def main(case_file: str, rows_file: str) -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    case = read_case(Path(case_file))
    recipe = resolve(Path("recipes/bench/train.yaml"), None).recipe
    settings, rate = recipe.optimizer, recipe.phases["main"].schedule.peak
    assert rate is not None
    world = int(os.environ.get("WORLD_SIZE", "1"))
    arguments = TrainingArguments(
        output_dir=str(Path(rows_file).with_suffix(".out")),
        max_steps=case.steps,
        per_device_train_batch_size=case.tokens_per_step // case.seq_len // world,
        learning_rate=rate,
        lr_scheduler_type="constant",
        weight_decay=settings.weight_decay,
        adam_beta1=settings.betas[0],
        adam_beta2=settings.betas[1],
        adam_epsilon=settings.eps,
        max_grad_norm=settings.clip,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        ddp_backend="gloo" if world > 1 else None,
        dataloader_pin_memory=False,
    )
    model = AutoModelForCausalLM.from_pretrained(case.model, dtype=torch.float32)
    model.config.use_cache = False
    rank = int(os.environ.get("RANK", "0"))
    callbacks = [Rows(Path(rows_file))] if rank == 0 else []
    InOrder(model=model, args=arguments, train_dataset=Windows(case), callbacks=callbacks).train()


if __name__ == "__main__":
    main(*sys.argv[1:])
