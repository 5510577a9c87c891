"""The OpenAPI document against the service, by schemathesis: every operation, with what it allows and more."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from served import Served, working
from work_fixtures import write_raw

from gateway.ledger import keys

EXAMPLES = {False: 25, True: 8}  # with keys everything is the same, once one has come in
NOT_CHECKED = "positive_data_acceptance"  # a recipe's own rules are more than a JSON schema can say
ENDLESS = "/events$"


@pytest.mark.parametrize("with_keys", [False, True])
def test_every_operation_does_what_the_document_says(tmp_path: Path, with_keys: bool) -> None:
    write_raw(tmp_path / "raw")
    served = Served(tmp_path, keys=with_keys)
    with served.database.write() as session:
        key = keys.add(session, 0.0, "tester", ["admin"]) if with_keys else None
    with closing(served), working(served):
        command: list[Any] = [Path(sys.executable).with_name("schemathesis"), "run", f"{served.url}/openapi.json"]
        command += [
            "--max-examples",
            str(EXAMPLES[with_keys]),
            "--generation-deterministic",
            "--no-color",
            "--checks",
            "all",
        ]
        command += ["--exclude-checks", NOT_CHECKED, "--exclude-path-regex", ENDLESS]
        command += ["--header", f"Authorization: Bearer {key}"] if key else []
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr


def test_the_document_says_who_is_asked_for_a_key(http: Any) -> None:
    free, keyed = (client.get("/openapi.json").json() for client in (http(), http(keys=True)))
    assert "securitySchemes" not in free["components"]
    assert keyed["paths"]["/v1/builds"]["post"]["security"] == [{"HTTPBearer": []}]
    assert "security" not in keyed["paths"]["/livez"]["get"]


def test_every_operation_is_described(http: Any) -> None:
    client: TestClient = http()
    for path, operations in client.get("/openapi.json").json()["paths"].items():
        for method, operation in operations.items():
            assert operation.get("description"), f"{method} {path} says nothing of itself"
            assert operation["operationId"].isidentifier()
