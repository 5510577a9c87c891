"""Who works: this process, or Ray. The verbs that both know are in `verbs`; only `actors` and `cluster` know Ray."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from dataproc.workers.actors import Ray
from dataproc.workers.cluster import cluster_cpus, private_ray, running_ray
from dataproc.workers.verbs import MEMORY_BYTES, Done, Serial, Task, Workers
from manifest.errors import InputError

__all__ = ["MEMORY_BYTES", "Done", "Serial", "Task", "Workers", "count_of", "open_workers"]


@contextmanager
def open_workers(spec: str, memory_bytes: int = MEMORY_BYTES) -> Iterator[Workers]:
    """The workers that a command names.

    serial        this process
    local:N       N workers on a Ray that is started here and stopped afterwards
    ray, ray:N    the running cluster at RAY_ADDRESS (or on this machine), all its CPUs or N of them
    ray://…       the running cluster there

    On a cluster of several machines the store lies on a file system that all of them share. Raises InputError for
    another spec, or if no cluster answers.
    """
    kind, _, count = spec.partition(":")
    if spec == "serial":
        yield Serial(memory_bytes)
    elif kind == "local" and count.isdecimal() and int(count) > 0:
        with private_ray(int(count)), closing(Ray(int(count), memory_bytes)) as workers:
            yield workers
    elif spec == "ray" or spec.startswith("ray://"):
        with running_ray(spec), closing(Ray(cluster_cpus(), memory_bytes)) as workers:
            yield workers
    elif kind == "ray" and count.isdecimal() and int(count) > 0:
        with running_ray("ray"), closing(Ray(int(count), memory_bytes)) as workers:
            yield workers
    else:
        raise InputError(f"--workers {spec}: expected serial, local:N (such as local:2), ray, ray:N or ray://host:port")


def count_of(spec: str) -> int:
    """How many workers a spec asks for, as far as it says: 1 where only the cluster knows."""
    count = spec.partition(":")[2]
    return int(count) if count.isdecimal() and int(count) else 1
