"""A Ray of this process's own, or one that runs already."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from manifest.ray_cluster import join, lock_out_others, start


@contextmanager
def private_ray(workers: int, *, dashboard: bool = False) -> Iterator[str | None]:
    """A Ray for this process alone, with so many CPUs: whoever does not inherit its token is refused.

    Gives the URL of its dashboard, on 127.0.0.1, if it is to have one. Raises WinnowError if Ray cannot be started.
    """
    lock_out_others()
    import ray  # after the environment, which Ray reads when it is imported

    with _any_agent_port(ray):
        context = start(ray, workers, include_dashboard=dashboard, dashboard_host="127.0.0.1")
    try:
        yield f"http://{context.dashboard_url}" if dashboard else None
    finally:
        ray.shutdown()


def ray_address() -> str:
    """The host:port of the Ray that this process is connected to, as RAY_ADDRESS has it."""
    import ray

    return str(ray.get_runtime_context().gcs_address)


@contextmanager
def _any_agent_port(ray: Any) -> Iterator[None]:
    """Within it, a Ray that is started leaves port 52365 to others.

    What starts a Ray's jobs listens there and on no other, so of two Rays on a machine the second takes none; `ray
    start` has a flag for it, and ray.init has not.
    """
    parameter = ray._private.parameter
    original = parameter.RayParams
    parameter.RayParams = partial(original, dashboard_agent_listen_port=None)
    try:
        yield
    finally:
        parameter.RayParams = original


@contextmanager
def running_ray(spec: str) -> Iterator[None]:
    """Within it, this process is connected to a cluster: `ray` or `ray://host:port`. Raises InputError."""
    import ray

    join(ray, spec if spec != "ray" else os.environ.get("RAY_ADDRESS") or "auto")
    try:
        yield
    finally:
        ray.shutdown()


def cluster_cpus() -> int:
    """The CPUs of the cluster that this process is connected to, whoever uses them; at least 1."""
    import ray

    return max(1, sum(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]))
