"""Whether what a phase does not train is what it was: a SHA-256 per frozen parameter, at its start and at its end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from manifest.errors import WinnowError
from trainer.engine import Engine


class FrozenChangedError(WinnowError):
    """A parameter that is not trained is another one now."""


def frozen_digests(engine: Engine) -> dict[str, str]:
    """The SHA-256 of each frozen parameter: its numbers in fp32, row by row, little-endian. Collective.

    Each is gathered on all ranks, and hashed by one of them.
    """
    own: dict[str, str] = {}
    trained = set(engine.trained())
    frozen = [name for name in engine.parameters() if name not in trained]
    for index, name in enumerate(frozen):
        whole = engine.gather(name)
        if index % engine.world == engine.rank:
            own[name] = hashlib.sha256(whole.contiguous().numpy().tobytes()).hexdigest()
    found: dict[str, str] = {}
    for said in engine.collect(json.dumps(own)):
        found |= json.loads(said)
    return {name: found[name] for name in frozen}


def require_frozen(engine: Engine, before: Mapping[str, str], *, run: str, step: int) -> None:
    """Raises FrozenChangedError, naming the first, if a frozen parameter is not what it was. Collective."""
    if not before:
        return
    now = frozen_digests(engine)
    changed = [name for name, digest in before.items() if now.get(name) != digest]
    if changed:
        raise FrozenChangedError(
            f"run {run}: {changed[0]} is frozen, and has changed by step {step} (one of {len(changed)} of "
            f"{len(before)}). Nothing is saved; the newest checkpoint stays as it was. Go on from it, and report this"
        )
