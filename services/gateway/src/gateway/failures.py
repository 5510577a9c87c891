"""What a client of the service raises, and its words for a person.

WinnowError
├── Unreachable      nobody answers
├── Misunderstood    what answers is no Winnow service, or one of another version
└── ProblemError     the service says no, and why
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from gateway.messages import FieldError, Problem
from manifest.errors import InputError, WinnowError


def printable(text: str) -> str:
    """Text that somebody else wrote, for a terminal: colours dropped, other control characters spelt out."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c if c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" else _spelt(c) for c in plain)


def _spelt(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


class Unreachable(WinnowError):  # noqa: N818 - named as one would say it
    """The server does not answer, or says that it cannot at present."""


class Misunderstood(WinnowError):  # noqa: N818
    """What answers is no Winnow service, or one of another version."""


class ProblemError(WinnowError):
    """The service refuses. `problem` says why; a status of 4xx is the caller's doing."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(explained(problem.detail or problem.title, problem.errors))
        self.problem = problem
        self.exit_code = InputError.exit_code if 400 <= problem.status < 500 else WinnowError.exit_code


def explained(detail: str, errors: Sequence[FieldError]) -> str:
    """What is wrong, and a line per wrong field: /recipe/dedup/threshold → `recipe.dedup.threshold: …`.

    A detail all of whose words are said by the fields is left out.
    """
    fields = [f"{_dotted(error.pointer)}: {error.detail}" for error in errors]
    if set(re.findall(r"\w+", detail)) <= set(re.findall(r"\w+", " ".join(fields))):
        detail = f"{len(fields)} fields are wrong" if len(fields) > 1 else fields.pop()
    return printable("\n  ".join([detail, *fields]))


def _dotted(pointer: str) -> str:
    parts = (part.replace("~1", "/").replace("~0", "~") for part in pointer.removeprefix("/").split("/"))
    return ".".join(parts) or "the request"
