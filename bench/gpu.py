"""What is worth knowing of training on one GPU, in nine minutes: is it right, and how fast is it?

    python bench/gpu.py [--out bench/results] [--minutes 9]

    peak        FLOPs/s of a bf16 matrix product
    checks      flex attention against SDPA, and bf16 against fp32: the same losses to rounding
    attention   forward and backward at 2,048 and 8,192: causal, ALiBi by flex, ALiBi as a bias
    training    125M to 2.6B parameters, windows of 2,048 and 8,192, ZeRO 1 and 3: tokens/s, MFU, memory; beside a bare
                loop of torch, and LlamaForCausalLM of transformers in the same loop

Everything reads random tokens, so speed is all that it tells. What has no time or memory left is named with the reason.
Results are written after each line, as gpu.json and gpu.md: what is cut off leaves what there was. With --tiny the same
script runs on a CPU, to try it out.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data.fim import COUNTS
from trainer.data.loader import StepBatch
from trainer.engine import Engine, join, leave
from trainer.loss import window_losses
from trainer.model import flex
from trainer.model.decoder import build
from trainer.model.positions import alibi_bias
from trainer.model.shape import Architecture, Mup, Shape
from trainer.place import Place, free_port
from trainer.recipe import EngineRecipe, OptimizerRecipe

VOCABULARY = 50257
# layers, width, heads, filter: GPT-2's and Pythia's widths with a filter of 8/3; the last is BTLM's.
SIZES = {
    "125M": (12, 768, 12, 2048),
    "350M": (24, 1024, 16, 2730),
    "1.3B": (24, 2048, 16, 5461),
    "2.6B": (32, 2560, 32, 6826),
}
TINY = {"tiny": (2, 64, 4, 170)}
TOKENS = 65_536  # of a step
MICRO = 16_384  # that go through the model at once
RATE = 1e-4
STEPS, WARM = 8, 3


@dataclass
class Results:
    """Rows by section, written whenever one is added."""

    out: Path
    deadline: float
    sections: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, section: str, **row: Any) -> None:
        self.sections.setdefault(section, []).append(row)
        print(section, row, flush=True)
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "gpu.json").write_text(json.dumps(self.sections, indent=1) + "\n")
        (self.out / "gpu.md").write_text("\n".join(self._page()) + "\n")

    def attempt(self, section: str, name: str, needed_s: float, work: Callable[[], dict[str, Any]]) -> None:
        """A row of what `work` measures, or the reason why there is none."""
        left = self.deadline - time.monotonic()
        if left < needed_s:
            self.add(section, name=name, skipped=f"{left:.0f} s were left")
            return
        try:
            self.add(section, name=name, **work())
        except torch.cuda.OutOfMemoryError as error:
            self.add(section, name=name, skipped=str(error).partition(".")[0])
        finally:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()

    def _page(self) -> Iterator[str]:
        yield "# One GPU"
        for section, rows in self.sections.items():
            columns = list(dict.fromkeys(key for row in rows for key in row))
            yield f"\n## {section}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
            for row in rows:
                yield f"| {' | '.join(_shown(row.get(column, '')) for column in columns)} |"


def _shown(value: object) -> str:
    return (
        f"{value:,.4g}"
        if isinstance(value, float) and abs(value) < 1e4
        else f"{value:,}"
        if isinstance(value, (int, float))
        else str(value)
    )


# ---- what is built


def shape_of(dimensions: tuple[int, int, int, int], position: str, *, tied: bool = False) -> Shape:
    layers, width, heads, filter_ = dimensions
    mup = Mup(base_width=256, base_filter=682.6, embedding=1.0, logits=1.0, init_std=0.02, attention="1/sqrt(d)")
    return Shape(
        layers=layers,
        width=width,
        heads=heads,
        kv_heads=heads,
        head_dim=width // heads,
        filter=filter_,
        vocab_size=VOCABULARY,
        architecture=Architecture.model_validate(
            {"position": position, "feedforward": "swiglu", "norm": "rmsnorm", "bias": False, "tied": tied}
            | ({"mup": mup} if position == "alibi" else {})
        ),
    )


def batch(step: int, tokens: int, seq_len: int) -> StepBatch:
    rows = max(1, tokens // seq_len)
    read = np.random.default_rng(step).integers(0, VOCABULARY, (rows, seq_len))
    weights, fim = np.ones((rows, seq_len - 1), np.float32), np.zeros((rows, len(COUNTS)), np.int64)
    return StepBatch(step, 0, read, weights, np.zeros(rows, np.int64), fim)


@contextmanager
def engine(shape: Shape, *, zero: int, precision: str, attention: str, micro: int) -> Iterator[Engine]:
    settings = EngineRecipe.model_validate({"zero": zero, "precision": precision, "micro_batch_tokens": micro})
    made = Engine(build(shape, seed=1, attention=attention), OptimizerRecipe(), settings)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], rounds: int = STEPS, warm: int = WARM) -> float:
    """The median of some rounds, after some that do not count."""
    taken = []
    for number in range(warm + rounds):
        synchronise()
        began = time.perf_counter()
        work()
        synchronise()
        if number >= warm:
            taken.append(time.perf_counter() - began)
    return median(taken)


# ---- what is measured


def peak(device: torch.device, size: int) -> float:
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * size**3 / seconds(lambda: left @ right, 20, 5)


def check_attention(shape: Shape, device: torch.device, length: int) -> dict[str, Any]:
    """The largest difference of a logit between flex attention and SDPA, in fp32, and of their scale."""
    logits = []
    kinds: tuple[Literal["sdpa", "flex"], ...] = ("sdpa", "flex")
    for kind in kinds:
        decoder = build(shape, seed=1, attention=kind).to(device)
        tokens_BT = torch.arange(2 * length, device=device).view(2, length) % 1000
        documents_BT = (torch.arange(length, device=device) // (length // 3)).expand(2, -1)
        with torch.no_grad():
            logits.append(decoder(tokens_BT, documents_BT))
    apart = float((logits[0] - logits[1]).abs().max())
    return {"largest_difference": apart, "largest_logit": float(logits[0].abs().max()), "ok": apart < 1e-3}


def check_precision(shape: Shape, attention: str, tokens: int, seq_len: int) -> dict[str, Any]:
    losses: dict[str, list[float]] = {}
    for precision in ("fp32", "bf16"):
        with engine(shape, zero=1, precision=precision, attention=attention, micro=tokens) as made:
            rows = [made.step(batch(0, tokens, seq_len), RATE).losses for _ in range(5)]
            losses[precision] = [float(row.sum()) / row.numel() / (seq_len - 1) for row in rows]
    apart = max(abs(a - b) / b for a, b in zip(losses["bf16"], losses["fp32"], strict=True))
    return {
        "first": losses["bf16"][0],
        "last": losses["bf16"][-1],
        "largest_relative_difference": apart,
        "ok": apart < 0.01,
    }


def time_attention(kind: str, device: torch.device, length: int, heads: int) -> dict[str, Any]:
    """Milliseconds of a forward and backward pass over 16,384 positions of heads of 128 in bf16."""
    rows = max(1, MICRO // length)
    dtype = torch.bfloat16
    q, k, v = (torch.randn(rows, heads, length, 128, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
    if kind == "ALiBi by flex":
        made = flex.kernel(length, device, heads=heads)

        def forward() -> Tensor:
            return flex.attend(q, k, v, made, 128**-0.5)

    elif kind == "causal by flex":
        plain = flex.kernel(length, device)

        def forward() -> Tensor:
            return flex.attend(q, k, v, plain, 128**-0.5)

    else:
        bias = alibi_bias(heads, length, device).to(dtype) if kind == "ALiBi as a bias" else None

        def forward() -> Tensor:
            return functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=bias is None)

    return {"length": length, "ms": 1000 * seconds(lambda: torch.autograd.backward(forward().sum()))}


def train_winnow(
    shape: Shape, seq_len: int, zero: int, attention: str, tokens: int, peak_flops: float
) -> dict[str, Any]:
    with engine(shape, zero=zero, precision="bf16", attention=attention, micro=min(MICRO, tokens)) as made:
        one = batch(0, tokens, seq_len)
        return _figures(shape, seq_len, tokens, seconds(lambda: made.step(one, RATE)), peak_flops)


def train_bare(model: nn.Module, shape: Shape, seq_len: int, tokens: int, peak_flops: float) -> dict[str, Any]:
    """fp32 weights under autocast, fused AdamW: what a loop of torch does."""
    device = next(model.parameters()).device
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    tokens_NT = torch.from_numpy(batch(0, tokens, seq_len).tokens).to(device)
    rows = max(1, min(MICRO, tokens) // seq_len)

    def step() -> None:
        for part_BT in tokens_NT.split(rows):  # type: ignore[no-untyped-call]
            with torch.autocast(device.type, torch.bfloat16):
                found = model(part_BT[:, :-1])
                logits_BTV = found if isinstance(found, Tensor) else found.logits
            torch.autograd.backward(window_losses(logits_BTV, part_BT[:, 1:]).sum() / tokens)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return _figures(shape, seq_len, tokens, seconds(step), peak_flops)


def llama(shape: Shape) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.padded_vocab,
        hidden_size=shape.width,
        intermediate_size=shape.filter,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        use_cache=False,
    )
    made: nn.Module = LlamaForCausalLM(config)
    return made


def _figures(shape: Shape, seq_len: int, tokens: int, step_s: float, peak_flops: float) -> dict[str, Any]:
    memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    rate = tokens / step_s
    return {
        "parameters": shape.parameters,
        "seq_len": seq_len,
        "tokens_per_s": round(rate),
        "mfu": rate * shape.flops_per_token(seq_len) / peak_flops,
        "memory_gb": memory / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--tiny", action="store_true", help="a decoder of 2 layers, also on a CPU: to try the script")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() and not arguments.tiny:
        parser.error("there is no CUDA device; --tiny tries the script on the CPU")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    join(Place(0, 1, 0, "127.0.0.1", free_port()))
    try:
        measure(Results(arguments.out, time.monotonic() + 60 * arguments.minutes), tiny=arguments.tiny)
    finally:
        leave()


def measure(results: Results, *, tiny: bool) -> None:
    """All sections, the shortest and most telling first."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    sizes, lengths, tokens = (TINY, (64, 128), 512) if tiny else (SIZES, (2048, 8192), TOKENS)
    name = torch.cuda.get_device_name() if cuda else "CPU"
    peak_flops = peak(device, 256 if tiny else 8192)
    results.add("peak", name=name, torch=torch.__version__, tflops=peak_flops / 1e12)
    small = next(iter(sizes.values()))
    alibi = "flex" if cuda else "sdpa"
    for position in ("alibi", "rope"):
        shape = shape_of(small, position)
        results.attempt("checks", f"{position}: flex and SDPA", 20, lambda s=shape: check_attention(s, device, 192))  # type: ignore[misc]
        kind = alibi if position == "alibi" else "sdpa"
        results.attempt(
            "checks",
            f"{position}: bf16 and fp32",
            20,
            lambda s=shape, k=kind: check_precision(s, k, 4 * 128, 128),  # type: ignore[misc]
        )
    kinds = ("causal", "causal by flex", "ALiBi by flex", "ALiBi as a bias") if cuda else ("causal", "ALiBi as a bias")
    for length in lengths:
        for kind in kinds:
            heads = 2 if tiny else 16
            results.attempt("attention", kind, 15, lambda k=kind, n=length, h=heads: time_attention(k, device, n, h))  # type: ignore[misc]
    order = ["1.3B", "125M", "2.6B", "350M"] if not tiny else list(sizes)
    for size in order:
        for seq_len in lengths:
            _train_all(results, size, sizes[size], seq_len, tokens, peak_flops, device, alibi)


def _train_all(
    results: Results,
    size: str,
    dimensions: tuple[int, int, int, int],
    seq_len: int,
    tokens: int,
    peak_flops: float,
    device: torch.device,
    alibi: str,
) -> None:
    rope, slopes = shape_of(dimensions, "rope"), shape_of(dimensions, "alibi")
    for zero in (1, 3):
        for shape, attention, what in ((slopes, alibi, "ALiBi"), (rope, "sdpa", "RoPE")):
            results.attempt(
                "training",
                f"Winnow {size}, {what}, ZeRO {zero}",
                30,
                lambda z=zero, s=shape, a=attention: train_winnow(s, seq_len, z, a, tokens, peak_flops),  # type: ignore[misc]
            )
    for what, make in (("bare loop", lambda: build(rope, seed=1)), ("transformers' Llama", lambda: llama(rope))):
        results.attempt(
            "training",
            f"{what} {size}, RoPE",
            30,
            lambda m=make: train_bare(m().to(device), rope, seq_len, tokens, peak_flops),  # type: ignore[misc]
        )


if __name__ == "__main__":
    main()
