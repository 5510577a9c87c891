"""The least that trains the decoder: a loop of torch over windows that are in memory. One process.

python -m bench.train.bare CASE.json ROWS.jsonl
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from bench.train.case import read_case
from trainer.model.decoder import build
from trainer.sizes import resolve


def main(case_file: str, rows_file: str) -> None:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    case = read_case(Path(case_file))
    recipe = resolve(Path("recipes/bench/train.yaml"), None).recipe
    settings, rate = recipe.optimizer, recipe.phases["main"].schedule.peak
    assert rate is not None
    decoder = build(case.shape, seed=case.seed)
    decays = [p for p in decoder.parameters() if p.ndim >= 2]
    others = [p for p in decoder.parameters() if p.ndim < 2]
    groups = [
        {"params": decays, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=settings.betas, eps=settings.eps, fused=True)
    windows = np.load(case.windows, mmap_mode="r")
    rows_at_once = max(1, recipe.engine.micro_batch_tokens // case.seq_len)
    with Path(rows_file).open("w") as out:
        for step in range(case.steps):
            tokens_NT = torch.from_numpy(np.array(windows[step]))
            targets = tokens_NT[:, 1:].numel()
            total = 0.0
            for part_BT in torch.split(tokens_NT, rows_at_once):
                logits_BTV = decoder(part_BT[:, :-1])
                loss = functional.cross_entropy(logits_BTV.flatten(0, 1), part_BT[:, 1:].flatten(), reduction="sum")
                torch.autograd.backward(loss / targets)
                total += float(loss)
            torch.nn.utils.clip_grad_norm_(decoder.parameters(), settings.clip)
            optimizer.step()
            optimizer.zero_grad()
            out.write(json.dumps({"step": step, "at": time.time(), "loss": total / targets}) + "\n")
            out.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
