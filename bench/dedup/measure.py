"""Runs a command and measures its whole process tree: CPU, wall, memory. Linux; no privileges needed.

    python -m bench.dedup.measure RESULT.json LIMIT_S DIRECTORY LOG COMMAND…

This process makes itself the parent of orphans (PR_SET_CHILD_SUBREAPER), so daemons and what fork servers start are
its children in the end, and the kernel's account of children that were waited for is complete. A process whose parent
ignores its end leaves no account; so the sum over processes of the CPU time that each was last seen with is kept too
(every SAMPLE_S), and the larger of the two is the result. Memory is proportional set size (shared pages are divided
among their users), summed over the tree at each sample; its peak may be missed by what happens between two. Where other
measured commands are there at the same time (MEASURED_BESIDE in the environment), the pages of files, which they share,
are counted whole, once per tree: those of the process that has the most.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

SAMPLE_S = 0.2
GRACE_S = 15.0  # for what outlives the command, such as a cluster's daemons
PR_SET_CHILD_SUBREAPER = 36
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measured:
    """What a run cost. `others`: CPUs' worth of work that other programs did on this machine meanwhile."""

    exit_code: int
    timed_out: bool
    wall_s: float
    cpu_s: float
    peak_mb: float
    peak_process_mb: float
    processes: int
    others: float
    killed: int


@dataclass
class Watch:
    """What was seen of a tree so far. beside: other commands are measured at the same time."""

    beside: bool = False
    peak_mb: float = 0.0
    peak_process_mb: float = 0.0
    cpu_ticks: dict[tuple[int, int], int] = field(default_factory=dict)

    def sample(self) -> list[int]:
        """Takes a sample; returns the processes that are there."""
        tree = _descendants()
        sizes = [_memory_mb(pid, self.beside) for pid in tree]
        of_files = max((files for _, files in sizes), default=0.0)
        self.peak_mb = max(self.peak_mb, sum(own for own, _ in sizes) + of_files)
        self.peak_process_mb = max([self.peak_process_mb, *(own + files for own, files in sizes)])
        self.cpu_ticks |= {(pid, began): ticks for pid, (_, ticks, began) in tree.items()}
        return list(tree)


def measure(command: list[str], *, directory: Path, log: Path, limit_s: float) -> Measured:
    """Runs a command in a directory, its output going to a log, and ends what it leaves behind."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    watch = Watch(beside="MEASURED_BESIDE" in os.environ)
    busy, began = _busy_ticks(), time.monotonic()
    with log.open("wb") as output:
        main = subprocess.Popen(
            command, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        ).pid
    exit_code, timed_out = _wait(main, watch, began + limit_s)
    wall_s = time.monotonic() - began
    killed = _end_the_rest(watch, 0.0 if timed_out else GRACE_S)
    total_s, busy = time.monotonic() - began, _busy_ticks() - busy
    usage, own = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = max(usage.ru_utime + usage.ru_stime, sum(watch.cpu_ticks.values()) / TICK)
    others = max(0.0, busy / TICK - cpu_s - own.ru_utime - own.ru_stime) / total_s
    return Measured(
        exit_code, timed_out, wall_s, cpu_s, watch.peak_mb, watch.peak_process_mb, len(watch.cpu_ticks), others, killed
    )


def _wait(main: int, watch: Watch, deadline: float) -> tuple[int, bool]:
    """Until the command ends, or its time does: its exit code, and whether it was its time."""
    while time.monotonic() < deadline:
        for pid, status in _reap():
            if pid == main:
                return os.waitstatus_to_exitcode(status), False
        watch.sample()
        time.sleep(SAMPLE_S)
    return -signal.SIGKILL, True


def _end_the_rest(watch: Watch, grace_s: float) -> int:
    """Waits for what is left of the tree, then ends it; returns how many had to be ended."""
    deadline = time.monotonic() + grace_s
    ended: set[int] = set()
    while True:
        _reap()
        left = watch.sample()
        if not left:
            return len(ended)
        if time.monotonic() >= deadline:
            for pid in left:
                _kill(pid)
            ended |= set(left)
        time.sleep(SAMPLE_S)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _reap() -> list[tuple[int, int]]:
    """(pid, status) of the children that have ended."""
    ended: list[tuple[int, int]] = []
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        ended.append((pid, status))


def _descendants() -> dict[int, tuple[int, int, int]]:
    """The processes below this one: pid → (parent, CPU ticks, start), zombies included."""
    known: dict[int, tuple[int, int, int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            known[int(entry)] = int(fields[1]), int(fields[11]) + int(fields[12]), int(fields[19])
    children: dict[int, list[int]] = {}
    for pid, (parent, _, _) in known.items():
        children.setdefault(parent, []).append(pid)
    found: dict[int, tuple[int, int, int]] = {}
    waiting = list(children.get(os.getpid(), []))
    while waiting:
        pid = waiting.pop()
        found[pid] = known[pid]
        waiting += children.get(pid, [])
    return found


def _memory_mb(pid: int, beside: bool) -> tuple[float, float]:
    """A process's memory, and apart from that the pages of files, where they are counted by themselves."""
    try:
        lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()[1:]
    except OSError:  # a zombie, or it ended meanwhile
        return 0.0, 0.0
    mb = {name: int(value.split()[0]) * 1024 / 1e6 for name, _, value in (line.partition(":") for line in lines)}
    if not beside:
        return mb.get("Pss", 0.0), 0.0
    return mb["Pss_Anon"] + mb["Pss_Shmem"], mb["Rss"] - mb["Anonymous"]


def _busy_ticks() -> int:
    """CPU ticks that this machine has spent on anything since it was started."""
    user, nice, system, _idle, _wait, interrupts, soft = map(int, Path("/proc/stat").read_text().split()[1:8])
    return user + nice + system + interrupts + soft


if __name__ == "__main__":
    result, limit_s, directory, log, *command = sys.argv[1:]
    measured = measure(command, directory=Path(directory), log=Path(log), limit_s=float(limit_s))
    Path(result).write_text(json.dumps(asdict(measured)))
