"""Where a run's workers are, as `--workers` says it, and what is called while they run.

local:N         N processes on this machine
ray, ray:N      N Ray actors on the cluster that RAY_ADDRESS names, or on a Ray started here and stopped afterwards
ray://host:port a running cluster
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from manifest.errors import InputError

POLL_S = 0.2

Tick = Callable[[], None]
"""Called while the workers run."""

Asked = Callable[[], bool]
"""Whether the run was asked to stop."""


@dataclass(frozen=True)
class Workers:
    """`address`: None for processes on this machine, "ray" or a ray:// address. `count`: None for all there are."""

    address: str | None
    count: int | None


def parse_workers(text: str) -> Workers:
    """--workers. Raises InputError."""
    if text == "local":
        return Workers(None, None)
    if match := re.fullmatch(r"local:([1-9]\d*)", text):
        return Workers(None, int(match[1]))
    if match := re.fullmatch(r"ray(?::([1-9]\d*))?", text):
        return Workers("ray", int(match[1]) if match[1] else None)
    if text.startswith("ray://"):
        return Workers(text, None)
    raise InputError(f"--workers {text}: expected local, local:N (such as local:2), ray, ray:N or ray://host:port")
