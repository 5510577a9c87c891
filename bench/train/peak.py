"""The floating-point operations per second that a matrix product reaches: what the machine could do."""

from __future__ import annotations

import subprocess
import sys
import time
from statistics import median

SIZE = 1536
ROUNDS = 9


def matmul_flops(threads: int) -> float:
    """FLOPs/s of a square fp32 product with so many threads, in a process of its own; the median of ROUNDS."""
    command = [sys.executable, "-m", "bench.train.peak", str(threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _measure(threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    left, right = torch.randn(SIZE, SIZE), torch.randn(SIZE, SIZE)
    rates = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        torch.mm(left, right)
        rates.append(2 * SIZE**3 / (time.perf_counter() - began))
    return median(rates)


if __name__ == "__main__":
    print(_measure(int(sys.argv[1])))
