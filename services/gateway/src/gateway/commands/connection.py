"""--server and --key-file, which every command has, and the environment behind them → a client."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from gateway.address import DEFAULT_SERVER
from manifest.errors import InputError

if TYPE_CHECKING:  # httpx comes with it, which --help has no use for
    from gateway.client import Client

SERVER = "WINNOW_SERVER"
KEY = "WINNOW_KEY"


def connection_flags() -> argparse.ArgumentParser:
    """A parent for the parser of each command."""
    flags = argparse.ArgumentParser(add_help=False)
    group = flags.add_argument_group("the service")
    group.add_argument("--server", metavar="URL", help=f"where it is (default {SERVER}, or {DEFAULT_SERVER})")
    group.add_argument(
        "--key-file", type=Path, metavar="FILE", help=f"a file with the API key (default: the key in {KEY}, if any)"
    )
    return flags


def connected(arguments: argparse.Namespace) -> Client:
    """Raises InputError."""
    from gateway.client import Client

    server = arguments.server or os.environ.get(SERVER) or DEFAULT_SERVER
    if arguments.key_file is not None:
        return Client(server, _read_key(arguments.key_file))
    return Client(server, os.environ.get(KEY, "").strip() or None)


def _read_key(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise InputError(f"--key-file {file}: {error.strerror}; give a file with the key in it") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--key-file {file}: not a text file with a key in it") from error


def again(arguments: argparse.Namespace, *words: str) -> str:
    """A command over the same service, to be typed."""
    flags = [f"--server={arguments.server}"] if arguments.server else []
    flags += [f"--key-file={arguments.key_file}"] if arguments.key_file else []
    return shlex.join(["winnow", *words, *flags])
