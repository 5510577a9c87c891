"""How many processors this process may use: what `--workers` counts where nobody says a number.

affinity                  taskset, a scheduler's pinning
quota of control groups   what a container was given of a machine (`docker run --cpus`, a pod's limit)
threads of one core       share its arithmetic units, so numerical work takes one of them
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_ROOT = Path("/")


def cpus_here(root: Path = _ROOT) -> int:
    """The CPUs of the affinity, at most as many as the quota comes to, rounded down; at least 1.

    root: where /proc and /sys are.
    """
    return max(1, min(len(_affinity()), *(int(quota) for quota in _quotas(root))))


def cores_here(root: Path = _ROOT) -> int:
    """Of these, the ones that are a core by themselves."""
    return max(1, min(len({_core(root, cpu) for cpu in _affinity()}), cpus_here(root)))


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _core(root: Path, cpu: int) -> str:
    """A name for the core that a CPU is a thread of."""
    with suppress(OSError):  # systems that do not say
        return (root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    return str(cpu)


def _quotas(root: Path) -> Iterator[float]:
    """In CPUs, of the control groups that this process is in and of those around them; 2³² where there is none."""
    yield 2**32
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0":
            yield from (_share(*_words(group / "cpu.max")) for group in _around(root / "sys/fs/cgroup", path))
        elif "cpu" in controllers.split(","):
            for group in _around(root / "sys/fs/cgroup/cpu", path):
                yield _share(*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us"))


def _around(mount: Path, path: str) -> Iterator[Path]:
    """A control group and those that it lies in. A container may see its own at the mount itself."""
    own = mount / path.lstrip("/")
    yield own
    yield from (parent for parent in own.parents if parent.is_relative_to(mount))


def _share(quota: str = "max", period: str = "100000", *_: str) -> float:
    """CPUs: microseconds of each period. `max` and -1 are no limit."""
    return 2**32 if quota in ("max", "-1") else int(quota) / int(period)


def _words(file: Path) -> list[str]:
    return [word for line in _lines(file) for word in line.split()]


def _lines(file: Path) -> list[str]:
    with suppress(OSError):  # no such group, or no control groups at all
        return file.read_text().splitlines()
    return []
