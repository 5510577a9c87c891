"""The floating-point operations per second of a matrix product with some threads: what the machine could do."""

from __future__ import annotations

import subprocess
import sys


def matmul_flops(threads: int) -> float:
    """FLOPs/s of a fp32 product with so many threads, in a process of its own; measured as for the MFU of a run."""
    command = [sys.executable, "-m", "bench.train.peak", str(threads)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def _measure(threads: int) -> float:
    import torch

    from trainer.peak import peak_flops

    torch.set_num_threads(threads)
    return peak_flops("cpu", torch.float32)


if __name__ == "__main__":
    print(_measure(int(sys.argv[1])))
