"""API keys: `wk_<id>_<secret>`. The ledger has the SHA-256 of a key; 256 random bits need no slower hash.

Scopes: read (look), build (builds), train (runs and reports), admin (everything).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from typing import Literal, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.ledger.tables import KeyRow
from manifest.errors import InputError

Scope = Literal["read", "build", "train", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "wk"
MOST_NAME_CHARS = 100

_KEY = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([0-9a-f]{{64}})")


def add(session: Session, now: float, name: str, scopes: Sequence[str]) -> str:
    """Makes a key and returns it; this is the only time that it can be seen. Raises InputError."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise InputError(f"--scope {', '.join(unknown)}: expected one or more of {', '.join(SCOPES)}")
    if not name.strip() or len(name) > MOST_NAME_CHARS or not name.isprintable():
        raise InputError(f"a key's name is 1 to {MOST_NAME_CHARS} printable characters; found {name!r}")
    key_id = secrets.token_hex(6)
    key = f"{PREFIX}_{key_id}_{secrets.token_hex(32)}"
    chosen = " ".join(scope for scope in SCOPES if scope in scopes)
    session.add(KeyRow(id=key_id, name=name.strip(), sha256=_hash(key), scopes=chosen, created=now, revoked=None))
    return key


def check(session: Session, key: str) -> KeyRow | None:
    """The row of a key that is valid now."""
    parts = _KEY.fullmatch(key)
    row = session.get(KeyRow, parts[1]) if parts else None
    if row is None or row.revoked is not None or not hmac.compare_digest(row.sha256, _hash(key)):
        return None
    return row


def listed(session: Session) -> Sequence[KeyRow]:
    return session.scalars(select(KeyRow).order_by(KeyRow.created, KeyRow.id)).all()


def revoke(session: Session, now: float, key_id: str) -> None:
    """Refuses a key from now on; doing it twice is doing it once. Raises InputError if there is none."""
    row = session.get(KeyRow, key_id)
    if row is None:
        raise InputError(f"there is no key {key_id!r}; `gateway keys list` shows those there are")
    row.revoked = row.revoked or now


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
