"""A service without a dispatcher, whose ledger the tests write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from work_fixtures import data_recipe

from gateway.app import create_app
from gateway.ledger import entries
from gateway.ledger.database import open_database
from gateway.ledger.entries import New
from gateway.ledger.states import Kind, State
from gateway.ledger.tables import EntryRow, JobRow
from gateway.service import Service
from gateway.settings import Settings
from manifest.mixture import Mixture, Phase, Stream, Tokenizer, View
from manifest.store import open_store


@dataclass(frozen=True)
class Ledger:
    """A service without a dispatcher, and short words for what happens in its ledger."""

    service: Service

    def client(self) -> TestClient:
        return TestClient(create_app(self.service), base_url="http://localhost:8787", follow_redirects=False)

    def ask(self, kind: Kind = "build", name: str = "tiny", label: str | None = None, **resolved: Any) -> str:
        """A queued entry; its id. Entries differ by kind, name and label."""
        request: dict[str, Any] = {"recipe": data_recipe(name), "raw": "/raw"}
        if kind == "run":
            request = {"recipe": {"name": name}, "mixture": "mixtures/demo-1"}
        if kind == "report":
            request = {"recipe": {"name": name}, "checkpoint": "runs/demo/checkpoints/1"}
        request["label"] = label
        with self.service.database.write() as session:
            now = self.service.database.now(session)
            key = f"{kind} {label} {name}"[:64]
            return entries.submit(session, now, New(kind, name, key, request, resolved, 1, "ada"))[0].id

    def change(self, entry_id: str, *states: State, note: str | None = None, **fields: Any) -> None:
        """Through these states, and then with these fields."""
        with self.service.database.write() as session:
            row, now = session.get_one(EntryRow, entry_id), self.service.database.now(session)
            for state in states:
                entries.move(session, now, row, state)
            if note is not None:
                entries.append(session, now, row, "note", note=note)
            for name, value in fields.items():
                setattr(row, name, value)

    def begin(self, entry_id: str, done: int = 0, total: int = 100) -> None:
        """Carried out by a job of its own, and so far."""
        with self.service.database.write() as session:
            session.add(JobRow(id=f"job-{entry_id}", workers=1, owner="x", lease_until=0, created=0))
        progress = {"stage": "dedup", "done": done, "total": total, "unit": "documents", "left_s": 90.0}
        self.change(entry_id, "planning", "running", job_id=f"job-{entry_id}", attempt=1, progress=progress)

    def state(self, entry_id: str) -> str:
        with self.service.database.read() as session:
            return session.get_one(EntryRow, entry_id).state

    def write_log(self, entry_id: str, text: str) -> None:
        directory = self.service.settings.jobs / f"job-{entry_id}"
        directory.mkdir(parents=True)
        (directory / "log").write_text(text)

    def publish_mixture(self, name: str = "demo") -> str:
        """A mixture of two streams without shards; its path."""
        streams = {
            "docs": Stream(uri="../../tokens/docs", id="0" * 64, tokens=1000, documents=10, blocks=2, shards=()),
            "code": Stream(uri="../../tokens/code", id="1" * 64, tokens=3000, documents=30, blocks=6, shards=()),
        }
        record = Mixture(
            name=name,
            created="2026-01-02T03:04:05+00:00",
            tokenizer=Tokenizer(uri="../../tokenizers/t", digest="2" * 64, vocab_size=300, end_of_text=0),
            block_tokens=512,
            streams=streams,
            views={name: View(of=name, stream=name) for name in streams},
            phases=(Phase(name="main", draw={"docs": 1, "code": 3}),),
        )
        path = f"mixtures/{name}-1"
        with self.service.store.draft(path) as draft:
            record = record.identified()
            (draft / "manifest.json").write_bytes(record.to_json())
            self.service.store.publish(path, draft, record)
        return path

    def write_metrics(self, run_path: str, losses: list[float]) -> None:
        directory = Path(self.service.store.uri) / run_path
        directory.mkdir(parents=True, exist_ok=True)
        rows = ({"step": i, "tokens": 4096 * (i + 1), "loss": loss, "lr": 1e-3} for i, loss in enumerate(losses))
        (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    settings = Settings(home=tmp_path, raw_roots=("/raw",))
    database = open_database(settings.database_url)
    yield Ledger(Service(settings, database, open_store(settings.store_uri)))
    database.close()


@pytest.fixture
def guarded(ledger: Ledger) -> Ledger:
    """The same, but it asks for keys."""
    settings = ledger.service.settings.model_copy(update={"keys": True})
    return Ledger(replace(ledger.service, settings=settings))
