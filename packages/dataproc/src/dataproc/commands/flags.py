"""Flags that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path

from manifest.cpus import cpus_here
from manifest.errors import InputError, RecipeError

Commands = argparse._SubParsersAction

LEAST_MEMORY = 50_000_000


def add_workers(parser: argparse.ArgumentParser) -> None:
    """--workers and --worker-memory."""
    parser.add_argument(
        "--workers",
        default=f"local:{cpus_here()}",
        help="serial, local:N, ray, ray:N or ray://host:port (default %(default)s)",
    )
    parser.add_argument(
        "--worker-memory",
        metavar="BYTES",
        default="600M",
        help="what a worker should make do with, such as 600M or 4G, beside one batch of documents; more is spilled to "
        "disk (default %(default)s)",
    )


def memory_of(arguments: argparse.Namespace) -> int:
    """What --worker-memory says, in bytes. Raises RecipeError."""
    from manifest.fields import parse_count

    given = arguments.worker_memory
    try:
        count = parse_count(given)
    except ValueError as error:
        raise RecipeError(f"--worker-memory: {error}") from error
    if not isinstance(count, int) or count < LEAST_MEMORY:
        raise RecipeError(f"--worker-memory {given}: expected at least {LEAST_MEMORY // 10**6}M")
    return count


def add_result(parser: argparse.ArgumentParser, name: str) -> None:
    """--out, --json and --keep, of commands that write figures."""
    parser.add_argument("--out", default=name, help="directory for the results (default %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the numbers instead of the path; still write all")
    parser.add_argument(
        "--keep", metavar="KEYS", help="who survives, such as source_order,longest,id; default: as built"
    )


def result_directory(out: str) -> Path:
    """Where --out says. Raises InputError."""
    if "://" in out:
        raise InputError(f"--out {out}: results are written to a directory on this machine; give its path")
    return Path(out)
