"""The JSON Schemas of the manifests, for readers that are not written in Python; committed in `schema/`."""

from __future__ import annotations

import json
from pathlib import Path

from manifest.kinds import SCHEMAS

DIRECTORY = Path(__file__).parent / "schema"


def schema(kind: str) -> str:
    """The JSON Schema (draft 2020-12) of manifests of a kind, as text."""
    fields = SCHEMAS.get(kind, SCHEMAS["artifact"]).model_json_schema(mode="serialization")
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(head | fields, indent=2, ensure_ascii=False) + "\n"


def write(directory: Path = DIRECTORY) -> list[Path]:
    """Writes one file per kind and returns their paths."""
    directory.mkdir(exist_ok=True)
    files = [directory / f"{kind}.json" for kind in SCHEMAS]
    for file in files:
        file.write_text(schema(file.stem), encoding="utf-8")
    return files
