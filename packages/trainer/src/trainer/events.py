"""events.jsonl: what happened to a run besides its steps, a JSON object per line. Nothing is ever taken out of it.

at (ISO 8601, UTC), event, step, and what belongs to the event:

restart   step: that it goes on after. why: the last words of the worker that was lost
spike     step, loss, limit, action; to: the step that a rewind goes on after; skipped: [first, stop), not learned;
          after_rewinds: so many in a row, after which it is learned;
          table, documents, worst: what the step read (spike_table.py)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from manifest.record import now

EVENTS = "events.jsonl"


def add(directory: Path, event: str, step: int, **fields: Any) -> None:
    """Adds an event to those of the run in a directory, in one write."""
    with (directory / EVENTS).open("a", encoding="utf-8") as out:
        out.write(json.dumps({"at": now(), "event": event, "step": step, **fields}) + "\n")


def events(directory: Path) -> list[dict[str, Any]]:
    """The events of a run, in order; of one that was cut off by a kill, nothing."""
    file = directory / EVENTS
    if not file.is_file():
        return []
    whole, _, _ = file.read_text(encoding="utf-8").rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]
