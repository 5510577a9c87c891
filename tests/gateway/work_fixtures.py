"""Requests for real work that takes a second or two: tiny raw sources, and the recipes over them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from gateway.ledger import entries
from gateway.ledger.database import Database
from gateway.ledger.entries import New
from gateway.ledger.tables import EntryRow

SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


def write_raw(directory: Path, documents: int = 60, seed: int = 0) -> Path:
    """Two sources of random words, with some near-duplicates between them."""
    rng = random.Random(seed)
    texts = [" ".join("".join(rng.choices(SYLLABLES, k=3)) for _ in range(60)) for _ in range(2 * documents)]
    copies = [text + " more" for text in texts[:documents:4]]
    for name, chosen in (("a", texts[:documents]), ("b", [*texts[documents:], *copies])):
        (directory / name).mkdir(parents=True, exist_ok=True)
        lines = [json.dumps({"text": text}) for text in chosen]
        (directory / name / "0.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


def data_recipe(name: str = "tiny", **overrides: Any) -> dict[str, Any]:
    """A recipe over write_raw's sources."""
    return {
        "name": name,
        "sources": {"a": {"files": "a/*"}, "b": {"files": "b/*"}},
        "clean": {"min_chars": 0, "ftfy": False},
        "holdout": {"fraction": 0.1, "max_share": 0.5},
        "tokenizer": {"train": {"vocab_size": 300}},
        "block_tokens": 64,
        "phases": {"only": {"epochs": {"a": 1}}},
        **overrides,
    }


SIZES: dict[str, Any] = {"shared": {"tiny": {"layers": 1, "width": 16, "heads": 2, "filter": 32}}}


def train_recipe(name: str = "tiny", **overrides: Any) -> dict[str, Any]:
    """A recipe over data_recipe's mixture: a few steps of a decoder of a few thousand parameters."""
    schedule = {"shape": "linear", "warmup_steps": 2, "peak": 0.01, "end": 0.001, "span": "run"}
    return {
        "name": name,
        "architecture": {"position": "alibi", "feedforward": "swiglu", "norm": "layernorm", "bias": True, "tied": True},
        "size": "tiny",
        "phases": {"only": {"seq_len": 32, "tokens_per_step": 2048, "schedule": schedule}},
        **overrides,
    }


def eval_recipe(**overrides: Any) -> dict[str, Any]:
    return {"name": "tiny", "tasks": ["bits_per_byte"], "limit": 5, **overrides}


def ask_build(database: Database, raw: Path, name: str = "tiny", *, workers: int = 1, **overrides: Any) -> str:
    """A queued build; its id."""
    request = {"recipe": data_recipe(name, **overrides), "raw": str(raw), "options": {"workers": workers}}
    new = New("build", name, name, request, {"raw": str(raw)}, workers, "tester")
    with database.write() as session:
        return entries.submit(session, database.now(session), new)[0].id


def entry(database: Database, entry_id: str) -> EntryRow:
    with database.read() as session:
        found = session.get_one(EntryRow, entry_id)
        session.expunge(found)
        return found
