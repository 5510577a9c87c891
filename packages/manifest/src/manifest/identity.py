"""What makes two things the same: canonical JSON, and digests over it.

Identity is content. `id`, `created`, `producer`, and every `uri` say when, where and by whom; they are left
out, so an artifact keeps its identity when it is moved or made again.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

TOP_LEVEL_NOT_IDENTITY = frozenset({"id", "created", "producer"})
NOT_IDENTITY_ANYWHERE = frozenset({"uri"})


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8, shortest floats.

    Raises:
        TypeError: the value holds something without a stable form (a set, bytes, an object, a key that is no
            string).
        ValueError: a float that is NaN or infinite, or a string with lone surrogates.
    """
    _require_stable(value, "value")
    return _canonical(value)


def _canonical(value: Any) -> bytes:
    """The canonical JSON of what has a stable form, as all has that was read from JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


_ALWAYS_STABLE = frozenset({str, int, bool, type(None)})


def _require_stable(value: Any, where: str) -> None:
    if type(value) in _ALWAYS_STABLE or isinstance(value, str | bool | int):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}, which has no canonical JSON")
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(
                    f"{where} has the key {key!r} ({type(key).__name__}); canonical JSON has string keys only"
                )
            if type(item) not in _ALWAYS_STABLE:
                _require_stable(item, f"{where}.{key}")
        return
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        for index, item in enumerate(value):
            _require_stable(item, f"{where}[{index}]")
        return
    raise TypeError(f"{where} is a {type(value).__name__}, which has no canonical JSON")


def sha256(data: bytes) -> str:
    """SHA-256 as lower-case hex."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value. Raises as `canonical_json` does."""
    return sha256(canonical_json(value))


def identity(manifest: Mapping[str, Any], leave_out: frozenset[str] = NOT_IDENTITY_ANYWHERE) -> str:
    """The id of a manifest: the digest of its content, without `id`, `created`, `producer` and every `uri`.

    leave_out: the keys that are left out at any depth.
    """
    return digest_of(_body(manifest, leave_out))


def identity_as_written(fields: Mapping[str, Any], leave_out: frozenset[str] = NOT_IDENTITY_ANYWHERE) -> str:
    """`identity` of a manifest that was read from JSON. Raises ValueError for a number that is NaN or infinite."""
    return sha256(_canonical(_body(fields, leave_out)))


def _body(manifest: Mapping[str, Any], leave_out: frozenset[str]) -> Any:
    return _without({key: item for key, item in manifest.items() if key not in TOP_LEVEL_NOT_IDENTITY}, leave_out)


def _without(value: Any, keys: frozenset[str]) -> Any:
    """A value without some keys at any depth. Most values are leaves, which cost no call."""
    stable = _ALWAYS_STABLE
    if isinstance(value, dict) or (type(value) not in stable and isinstance(value, Mapping)):
        return {
            key: item if type(item) in stable else _without(item, keys)
            for key, item in value.items()
            if key not in keys
        }
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        return [item if type(item) in stable else _without(item, keys) for item in value]
    return value


def hash64(text: str) -> int:
    """A document id → 64 bits (BLAKE2b), which decide every sample, split and order of documents."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "big")


def content_hash(text: str) -> str:
    """A text → 128 bits of BLAKE2b as 32 hexadecimal digits."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def content_id(source: str, text: str) -> str:
    """The id of a document of a source without an id field; its further copies end in `.2`, `.3`, …"""
    return f"{source}/{content_hash(text)}"


def short(identifier: str) -> str:
    """The part of an id that directory names and messages show."""
    return identifier[:12]
