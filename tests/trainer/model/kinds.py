"""Decoders of every kind of position, with what else makes a difference to attention."""

from __future__ import annotations

from typing import Any

KINDS: list[dict[str, Any]] = [
    {"position": "alibi"},
    {"position": "alibi", "heads": 3, "kv_heads": 3},
    {"position": "alibi", "kv_heads": 1, "interpolation": {"factor": 2.0}},
    {"position": "rope"},
    {"position": "rope", "rotary_share": 0.5, "kv_heads": 2},
    {"position": "rope", "mup": None, "norm": "rmsnorm", "bias": False, "tied": False},
    {"position": "learned", "max_positions": 40},
]
