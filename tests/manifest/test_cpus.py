"""The processors of this process: the machine's own, and systems laid out as containers see them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manifest.cpus import cores_here, cpus_here

AFFINITY = len(os.sched_getaffinity(0))


def lay_out(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def test_no_more_than_the_affinity() -> None:
    assert 1 <= cores_here() <= cpus_here() <= AFFINITY
    one = f"import os; os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}])\n"
    asked = "from manifest.cpus import cores_here, cpus_here; print(cpus_here(), cores_here())"
    done = subprocess.run([sys.executable, "-c", one + asked], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, AFFINITY),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "max 100000"}, AFFINITY),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "150000 100000"}, 1),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "20000 100000"}, 1),
        ({"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "9900000 100000"}, AFFINITY),
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/cpu.max": "100000 100000"}, 1),
        ({"proc/self/cgroup": "0::/not/here", "sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n2:cpu,cpuacct:/pod\n0::/",
                "sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us": "100000",
                "sys/fs/cgroup/cpu/pod/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            1,
        ),
    ],
)
def test_a_quota_of_control_groups_counts(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    assert cpus_here(lay_out(tmp_path, files)) == cpus


def test_two_threads_of_a_core_are_one_core(tmp_path: Path) -> None:
    files = {f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": "0-127" for n in os.sched_getaffinity(0)}
    lay_out(tmp_path, files)
    assert (cpus_here(tmp_path), cores_here(tmp_path)) == (AFFINITY, 1)
