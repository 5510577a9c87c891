"""Where raw files may lie: under the configured roots, and nowhere else.

resolve("books/2024", roots)      the path in the first root that has it
resolve("/data/raw/books", roots) a path under a root, after links and '..' are followed
resolve("s3://bucket/raw", roots) a URI under a root of the same scheme and bucket
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from manifest.errors import InputError


class NotUnderRoots(InputError):  # noqa: N818 - named as one would say it
    """A place that the service was not told to read."""


def resolve(place: str, roots: Sequence[str]) -> str:
    """The absolute path or URI of a place under one of the roots. Raises InputError.

    Whether there is something there is for the build to find out; whether it may be read is decided here.
    """
    if any(ord(character) < 32 or character == "\x7f" for character in place) or not place.strip():
        raise InputError(f"{place!r} is no path: it holds control characters, or nothing")
    try:
        place.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{place!r} is no path: it is not Unicode text") from error
    if "://" in place:
        return _uri(place, [root for root in roots if "://" in root])
    local = [Path(root) for root in roots if "://" not in root]
    if not os.path.isabs(place):
        return _relative(place, local, roots)
    return _absolute(place, local)


def require_under(paths: Iterable[str], roots: Sequence[str]) -> None:
    """Raises NotUnderRoots for a local path that a link leads out of the roots."""
    allowed = [_real(root) for root in roots if "://" not in root]
    for path in paths:
        if "://" not in path and not any(_real(path).is_relative_to(root) for root in allowed):
            raise NotUnderRoots(f"{path} is a link that leads out of the configured roots")


def _absolute(place: str, roots: Sequence[Path]) -> str:
    found = _real(place)
    if not any(found.is_relative_to(_real(str(root))) for root in roots):
        raise NotUnderRoots(f"{place} is not under a configured root ({_named([str(root) for root in roots])})")
    return str(found)


def _relative(place: str, local: Sequence[Path], roots: Sequence[str]) -> str:
    for root in local:
        found = _real(str(root / place))
        if not found.is_relative_to(_real(str(root))):
            raise NotUnderRoots(f"{place} leads out of the configured roots; write it without '..' and links")
        if os.path.exists(found):
            return str(found)
    remote = [root for root in roots if "://" in root]
    if remote and not local:
        return _uri(f"{remote[0]}/{place}", remote)
    raise InputError(f"{place} is in no configured root ({_named(roots)})")


def _uri(place: str, roots: Sequence[str]) -> str:
    parts = urlsplit(place)
    plain = not (parts.query or parts.fragment or "@" in parts.netloc)
    steps = parts.path.split("/")
    if plain and ".." not in steps and "." not in steps and "%" not in place and "\\" not in place:
        for root in roots:
            if (place.rstrip("/") + "/").startswith(root.rstrip("/") + "/"):
                return place.rstrip("/")
    raise NotUnderRoots(f"{place} is not under a configured root ({_named(roots)})")


def _real(path: str) -> Path:
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError) as error:
        raise InputError(f"{path!r} is no path: {error}") from error


def _named(roots: Sequence[str]) -> str:
    return ", ".join(roots) or "none for this scheme"
