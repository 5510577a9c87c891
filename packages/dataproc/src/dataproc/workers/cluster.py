"""A Ray of this process's own, or one that runs already."""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import ModuleType
from typing import Any

from manifest.errors import InputError

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
KNOCK_S = 5.0
WAIT_VARIABLE = "RAY_gcs_server_port_wait_time_s"
"""In Ray 2.60 a number of attempts to connect, each of up to 40 s."""
OBJECT_STORE_BYTES = 100_000_000  # data goes through files, so Ray's object store holds only task records


@contextmanager
def private_ray(workers: int, *, dashboard: bool = False) -> Iterator[str | None]:
    """A Ray for this process alone, with so many CPUs: whoever does not inherit its token is refused.

    Gives the URL of its dashboard, on 127.0.0.1, if it is to have one.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray  # after the environment, which Ray reads when it is imported

    options: dict[str, Any] = {"include_dashboard": dashboard, "dashboard_host": "127.0.0.1", **QUIET}
    with _any_agent_port(ray):
        context = ray.init("local", num_cpus=workers, object_store_memory=OBJECT_STORE_BYTES, **options)
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

    _join(ray, spec if spec != "ray" else os.environ.get("RAY_ADDRESS") or "auto")
    try:
        yield
    finally:
        ray.shutdown()


def _join(ray: ModuleType, address: str) -> None:
    """Connects to a running cluster: host:port, ray://host:port or auto, which is the one on this machine.

    Raises InputError for another address, and if no cluster lets us in there. Left to itself Ray would try for a
    quarter of an hour.
    """
    match = re.fullmatch(r"(?:ray://)?\[?([^/]+?)\]?:(\d+)", address)
    if match is None and address != "auto":
        raise InputError(f"{address} is no address of a Ray cluster: expected host:port or ray://host:port")
    told_to_wait = WAIT_VARIABLE in os.environ
    try:
        if match is not None:
            socket.create_connection((match[1], int(match[2])), timeout=KNOCK_S).close()
        os.environ.setdefault(WAIT_VARIABLE, "1")
        ray.init(address, **QUIET)
    except (OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"no Ray cluster can be used at {address} ({reason}); start one, set RAY_ADDRESS to where one runs (with "
            "RAY_AUTH_MODE and RAY_AUTH_TOKEN as they are there), or use --workers local:N"
        ) from error
    finally:
        if not told_to_wait:
            os.environ.pop(WAIT_VARIABLE, None)


def cluster_cpus() -> int:
    """The CPUs of the cluster that this process is connected to, whoever uses them; at least 1."""
    import ray

    return max(1, sum(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]))
