"""Everything Winnow raises on purpose, and what a command does with it.

    WinnowError                    exit 1
    └── InputError                 exit 2: what the user gave is wrong
        ├── RecipeError            a recipe, a flag, or a recipe that does not fit its mixture
        ├── DataError              a raw file or a document
        └── ArtifactError          a published artifact
            ├── NotAnArtifact      no manifest.json there
            ├── UnknownVersion     made by another version of the contract
            ├── CorruptArtifact    its files are not what its manifest says
            └── WrongArtifact      a sound artifact, but not the one that is needed

A message says what was found, where, what was expected and what to do.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass


class WinnowError(Exception):
    """Base of all errors that Winnow raises itself."""

    exit_code = 1


class InputError(WinnowError):
    """The user's input is wrong."""

    exit_code = 2


@dataclass(frozen=True)
class FieldProblem:
    """A field of a recipe that is wrong: its path, such as ("dedup", "threshold"), and what is wrong with it."""

    field: tuple[str | int, ...]
    message: str


class RecipeError(InputError):
    """A recipe or a flag asks for something that does not exist or does not add up. `problems`: where, if known."""

    def __init__(self, message: str, problems: Sequence[FieldProblem] = ()) -> None:
        super().__init__(message, tuple(problems))
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return str(self.args[0])


class DataError(InputError):
    """A raw file or a document cannot be used."""


class ArtifactError(InputError):
    """A published artifact cannot be used."""


class NotAnArtifact(ArtifactError):  # noqa: N818 - these four are named as a user would say them
    """There is no manifest where one was named."""


class UnknownVersion(ArtifactError):  # noqa: N818
    """The manifest was written by another version of the contract."""


class CorruptArtifact(ArtifactError):  # noqa: N818
    """The files of an artifact differ from what its manifest says."""


class WrongArtifact(ArtifactError):  # noqa: N818
    """The artifact is sound but not the one that is needed here."""


_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
}
_PATH = {
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a directory",
    errno.EISDIR: "a directory, where a file was expected",
}


def disk_error(error: OSError) -> InputError | None:
    """A full disk, or a path that may not be used, as an error for the user; None for any other OSError."""
    if error.errno in _PATH and error.filename:
        return InputError(f"{error.filename}: {_PATH[error.errno]}; choose another path, or change its permissions")
    reason = _DISK.get(error.errno or 0)
    if reason is None:
        return None
    where = f" while writing {error.filename}" if error.filename else ""
    return InputError(
        f"{reason}{where}; nothing half-written was published. Free some space (or choose another --out) "
        "and run the same command again: it continues from the last finished shard"
    )


def run_command(command: Callable[[], None]) -> int:
    """Runs a command's body and turns what it raises into a message on stderr and an exit code.

    0: done. 2: the user's input is wrong. 1: Winnow failed. 130: interrupted. 141: stdout was closed.
    With WINNOW_TRACEBACK set, errors keep their traceback.
    """
    try:
        command()
        if sys.stdout is not None:  # None where the caller closed it
            sys.stdout.flush()
    except WinnowError as error:
        return _report(error)
    except BrokenPipeError:  # `manifest show … | head`; a shell gives 141 to what SIGPIPE ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        known = disk_error(error)
        if known is None:
            raise
        return _report(known)
    except KeyboardInterrupt:
        print("interrupted; the same command continues from here", file=sys.stderr)
        return 130
    return 0


def _report(error: WinnowError) -> int:
    if os.environ.get("WINNOW_TRACEBACK"):
        raise error
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code
