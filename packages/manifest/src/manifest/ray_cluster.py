"""How data and training start a Ray of their own, or join one that runs.

Ray is passed in: the contract does not import it.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from types import ModuleType
from typing import Any

from manifest.errors import InputError, WinnowError

QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
OBJECT_STORE_BYTES = 100_000_000
"""Data and weights go through files, so Ray's object store holds only records of tasks."""
KNOCK_S = 5.0
WAIT_VARIABLE = "RAY_gcs_server_port_wait_time_s"
"""In Ray 2.60 a number of attempts to connect, each of up to 40 s."""


def lock_out_others() -> None:
    """For a Ray that this process is to start: whoever does not inherit its token is refused, as it may listen on all
    interfaces. Before Ray is imported, which reads the environment then.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def start(ray: ModuleType, cpus: int | None, **options: Any) -> Any:
    """Starts a Ray of this process's own, after `lock_out_others`; what `ray.init` returns. cpus: None for all.

    Raises WinnowError with Ray's reason.
    """
    try:
        return ray.init("local", num_cpus=cpus, object_store_memory=OBJECT_STORE_BYTES, **QUIET, **options)
    except Exception as error:  # a full or read-only directory, no free port, a node that does not answer in time
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WinnowError(
            f"Ray could not be started on this machine ({reason}); its logs are in session_latest/logs under "
            f"{os.environ.get('RAY_TMPDIR') or '/tmp/ray'}"
        ) from error


def join(ray: ModuleType, address: str) -> None:
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
