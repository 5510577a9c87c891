from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import jsonschema
import pytest

from manifest.checkpoint import Timeline
from manifest.order import OrderRecord
from manifest.schemas import DIRECTORY, schema, write

if TYPE_CHECKING:
    from tests.manifest.conftest import Builder


def test_the_committed_schemas_are_those_of_the_code(tmp_path: Path) -> None:
    written = {file.name: file.read_text() for file in write(tmp_path / "schema")}
    committed = {file.name: file.read_text() for file in DIRECTORY.glob("*.json")}
    assert written == committed, "run `manifest schema --write` and commit what it changed"


def test_published_manifests_are_valid_by_their_schema(build: Builder) -> None:
    tokens = build.tokens("c4", {"c4/1": [1, 2]}, inputs={"raw": build.raw("a", "b")})
    mixture = build.mixture("m", {"c4": tokens}, {"p": {"c4": 1}})
    timeline = Timeline(order=OrderRecord(seed=0, block_tokens=8), paces=())
    checkpoint = build.checkpoint("r", 0, timeline, [mixture])
    for built in (tokens, mixture, checkpoint, build.report("r", checkpoint)):
        jsonschema.validate(json.loads(built.manifest.to_json()), json.loads(schema(built.manifest.kind)))


def test_an_unknown_field_is_not_valid(build: Builder) -> None:
    fields = json.loads(build.artifact("deduped/c4").manifest.to_json()) | {"colour": "red"}
    with pytest.raises(jsonschema.ValidationError, match="colour"):
        jsonschema.validate(fields, json.loads(schema("artifact")))
