"""Where a worker stands among the others, and the settings that its process needs before torch is loaded."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import dataclass

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
"""What asks a worker to save at the end of its step, and to end."""


@dataclass(frozen=True)
class Place:
    """Worker `rank` of `world`, the `local_rank`-th on its machine; all of them meet at address:port."""

    rank: int
    world: int
    local_rank: int
    address: str
    port: int

    def environment(self) -> dict[str, str]:
        """The variables that DeepSpeed and torch.distributed read to meet the others."""
        return {
            "RANK": str(self.rank),
            "WORLD_SIZE": str(self.world),
            "LOCAL_RANK": str(self.local_rank),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def process_environment(threads: int = 1) -> dict[str, str]:
    """The variables that make a worker's process fast and quiet; they count when it starts.

    threads: of the worker, unless the user's environment says how many.
    """
    # Threads that wait spin before they sleep, if nothing else is said 30 times as long: where another program has one
    # of two cores, a step with two threads then takes 12 times as long, and 2.3 times with this; alone 1.02 times.
    spin = {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "10000")}
    return {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        **spin,
        "PYTHONWARNINGS": "ignore::FutureWarning",
        # glibc gives large buffers back to the system and takes them again in every step; keeping them is 15 % faster.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
        # Torch asks for huge pages where the system gives them to those who ask: 10 to 20 % faster, for memory that is
        # aligned to 2 MB.
        "THP_MEM_ALLOC_ENABLE": os.environ.get("THP_MEM_ALLOC_ENABLE", "1"),
    }


def free_port(address: str = "127.0.0.1") -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
    return port
