"""Real text that is already on this machine, as raw sources with the near-duplicates they naturally have.

out: <out>/<source>/*.jsonl.zst, one record per file: id (its path), text, meta {path}

    code       Python modules of the standard library and of the installed packages
    docs       descriptions and READMEs of the installed packages
    licences   licence texts beside them, and the system's
    system     /usr/share/doc, where there is one

Files are taken in order of a hash of their path, so a limit takes a fair sample of each source.
"""

from __future__ import annotations

import gzip
import shutil
import sysconfig
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
import zstandard

from dataproc import progress
from manifest.errors import InputError
from manifest.identity import hash64

MAX_FILE_BYTES = 100_000
SHARD_BYTES = 8_000_000


@dataclass(frozen=True)
class Place:
    """Files under `root` that match one of `patterns`. Ids are relative to `root`, under `label`."""

    label: str
    root: Path
    patterns: tuple[str, ...]


def places() -> dict[str, tuple[float, tuple[Place, ...]]]:
    """source → (its share of the limit, where its files are)."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    packages = Path(sysconfig.get_path("purelib"))
    licences = ("*.dist-info/**/LICEN[CS]E*", "*.dist-info/**/COPYING*", "*.dist-info/**/NOTICE*")
    return {
        "code": (0.50, (Place("stdlib", stdlib, ("*.py", "[!s]*/**/*.py")), Place("packages", packages, ("**/*.py",)))),
        "docs": (0.20, (Place("packages", packages, ("*.dist-info/METADATA", "**/*.md", "**/*.rst")),)),
        "licences": (
            0.10,
            (Place("packages", packages, licences), Place("system", Path("/usr/share/common-licenses"), ("*",))),
        ),
        "system": (0.20, (Place("doc", Path("/usr/share/doc"), ("**/*",)),)),
    }


def gather(out: Path, *, limit_bytes: int) -> None:
    """Writes the sources under `out`. Sources that are there are kept as they are.

    Raises InputError if `out` holds something else, or if the machine has no text at all.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a directory")
    total = 0
    for source, (share, where) in places().items():
        target = out / source
        if target.is_dir():
            progress.say(f"{source}: already in {target}")
            total += 1
            continue
        files = sorted({f for place in where for f in _files(place)}, key=lambda f: hash64(f[0]))
        total += _write(source, files, target, int(limit_bytes * share))
    if total == 0:
        raise InputError("no text was found on this machine; give dataproc build your own --raw directory")


def _files(place: Place) -> Iterator[tuple[str, Path]]:
    for pattern in place.patterns:
        for path in place.root.glob(pattern):
            if path.is_file() and 0 < path.stat().st_size <= MAX_FILE_BYTES:
                yield f"{place.label}/{path.relative_to(place.root)}", path


def _write(source: str, files: list[tuple[str, Path]], target: Path, limit_bytes: int) -> int:
    """Writes one source; returns how many records."""
    aside = target.with_name(f".{target.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    written = shard_bytes = records = 0
    lines: list[bytes] = []
    for identifier, path in files:
        text = _text(path)
        if text is None:
            continue
        line = orjson.dumps({"id": identifier, "text": text, "meta": {"path": str(path)}})
        lines.append(line)
        records += 1
        shard_bytes += len(line)
        written += len(line)
        if shard_bytes >= SHARD_BYTES:
            _flush(aside, lines)
            lines, shard_bytes = [], 0
        if written >= limit_bytes:
            break
    if lines:
        _flush(aside, lines)
    if records == 0:
        shutil.rmtree(aside)
        progress.say(f"{source}: nothing here")
        return 0
    aside.replace(target)
    progress.say(f"{source}: {records:,} files, {written / 1e6:.1f} MB → {target}")
    return records


def _flush(directory: Path, lines: list[bytes]) -> None:
    data = zstandard.compress(b"\n".join(lines) + b"\n")
    (directory / f"{len(list(directory.iterdir())):05d}.jsonl.zst").write_bytes(data)


def _text(path: Path) -> str | None:
    """The content of a text file; None for what is no UTF-8 text."""
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError):
        return None
    return None if "\0" in text else text
