"""Raw text to a report, with the commands that a user types; killed on the way, and traced both ways."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

BIN = Path(sys.executable).parent
RECIPES = Path(__file__).parents[2] / "recipes"
WORDS = """river stone light carry under market seven glass winter paper follow engine quiet open harbour
measure window bright corner letter silver garden""".split()

DATA = {
    "name": "flow",
    "sources": {"notes": {"files": "notes/*", "id": "id"}, "web": {"files": "web/*"}},
    "clean": {"min_chars": 100},
    "holdout": {"fraction": 0.1, "max_share": 0.3},
    "tokenizer": {"train": {"vocab_size": 320}},
    "block_tokens": 256,
    "phases": {"main": {"epochs": {"notes": 1, "web": 0.5}}},
}
TRAIN = {
    "name": "flow",
    "architecture": {"position": "alibi", "feedforward": "swiglu", "norm": "layernorm", "bias": True, "tied": True},
    "size": "nano",
    "save": {"every_tokens": 4096},
    "phases": {
        "main": {
            "seq_len": 64,
            "tokens_per_step": 1024,
            "schedule": {"shape": "linear", "warmup_steps": 2, "peak": 0.01, "end": 0.001},
        }
    },
}
SIZES = {"flow": {"nano": {"layers": 1, "width": 32, "heads": 2, "filter": 64}}}


def run(program: str, *arguments: object) -> str:
    """Runs a command to its end; returns the one line on its stdout."""
    done = subprocess.run([BIN / program, *map(str, arguments)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return line


def run_killed(until: Callable[[], bool], program: str, *arguments: object) -> None:
    """Starts a command and kills it with SIGKILL, with all it started, as soon as `until` holds."""
    process = subprocess.Popen(
        [BIN / program, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and not until():
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def write_raw(root: Path) -> None:
    """120 documents in two sources; every tenth of `web` copies one of `notes`."""
    rng = random.Random(7)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(40, 120))) for _ in range(120)]
    notes = [{"id": f"n{i}", "text": text} for i, text in enumerate(texts[:60])]
    web = [{"text": texts[i - 60] if i % 10 == 0 else texts[i]} for i in range(60, 120)]
    for name, records in (("notes", notes), ("web", web)):
        (root / name).mkdir(parents=True)
        (root / name / "part.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


class Flow:
    """A directory with raw text, recipes, and a store that two commands were killed in."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root, root / "store"
        write_raw(root / "raw")
        (root / "recipes" / "flow").mkdir(parents=True)
        (root / "recipes" / "sizes.yaml").write_text(yaml.safe_dump(SIZES))
        for name, recipe in (("data", DATA), ("train", TRAIN), ("eval", {"name": "flow", "tasks": ["bits_per_byte"]})):
            self.recipe(name).write_text(yaml.safe_dump(recipe))

    def recipe(self, name: str) -> Path:
        return self.root / "recipes" / "flow" / f"{name}.yaml"

    def build(self, store: Path) -> tuple[str, ...]:
        return (
            "dataproc",
            "build",
            self.recipe("data"),
            "--raw",
            self.root / "raw",
            "--out",
            store,
            "--workers",
            "serial",
        )

    def fit(self, store: Path, mixture: str) -> tuple[str, ...]:
        return "trainer", "fit", self.recipe("train"), "--mixture", mixture, "--out", store, "--workers", "local:1"


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    return Flow(tmp_path_factory.mktemp("flow"))


@pytest.fixture(scope="module")
def mixture(flow: Flow) -> str:
    run_killed(lambda: any(flow.store.glob("signatures/*")), *flow.build(flow.store))
    return run(*flow.build(flow.store))


@pytest.fixture(scope="module")
def checkpoint(flow: Flow, mixture: str) -> str:
    run_killed(
        lambda: any(flow.store.glob("runs/*/checkpoints/00000008/manifest.json")), *flow.fit(flow.store, mixture)
    )
    return run(*flow.fit(flow.store, mixture))


@pytest.fixture(scope="module")
def report(flow: Flow, checkpoint: str) -> str:
    return run("evalkit", "score", flow.recipe("eval"), "--checkpoint", checkpoint, "--out", flow.store)


def test_a_killed_build_and_a_killed_run_end_as_if_nothing_had_happened(
    flow: Flow, mixture: str, checkpoint: str, tmp_path: Path
) -> None:
    calm_mixture = run(*flow.build(tmp_path))
    calm = Path(run(*flow.fit(tmp_path, calm_mixture)))
    assert Path(calm_mixture).name == Path(mixture).name
    files = sorted(path.name for path in calm.glob("*.safetensors"))
    assert files
    for name in files:
        assert (calm / name).read_bytes() == (Path(checkpoint) / name).read_bytes()
    assert losses(calm) == losses(Path(checkpoint))


def losses(checkpoint: Path) -> list[float]:
    lines = (checkpoint.parents[1] / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_a_report_leads_back_to_every_raw_file(flow: Flow, report: str) -> None:
    tree = json.loads(subprocess.check_output([BIN / "manifest", "lineage", report, "--json"]))
    assert {Path(node["uri"]) for node in leaves(tree)} == set((flow.root / "raw").glob("*/*"))
    assert {node["state"] for node in nodes(tree)} == {"ok"}


def nodes(node: dict) -> Iterator[dict]:
    yield node
    for child in node["children"]:
        yield from nodes(child)


def leaves(tree: dict) -> Iterator[dict]:
    return (node for node in nodes(tree) if node["kind"] == "raw")


def test_exposure_of_a_document_agrees_with_the_audit_of_every_step(flow: Flow, checkpoint: str) -> None:
    from manifest.artifact import open_artifact, open_streams, resolve
    from manifest.checkpoint import Checkpoint
    from manifest.exposure import documents_of_step, exposures

    opened = open_artifact(checkpoint, kind="checkpoint")
    record = opened.manifest
    assert isinstance(record, Checkpoint)
    (reference,) = record.inputs.values()
    source = open_artifact(resolve(opened.uri, reference.uri), kind="mixture")
    streams = {source.manifest.streams[name].id: stream for name, stream in open_streams(source).items()}
    seen: dict[str, set[int]] = {}
    for step in range(record.step):
        for window in documents_of_step(record.timeline, streams, step):
            for span in window.spans:
                seen.setdefault(span.document, set()).add(step)
    assert len(seen) > 50
    for document, steps in seen.items():
        assert {exposure.step for exposure in exposures(record.timeline, streams, document)} == steps


def test_the_same_commands_again_publish_nothing_new(flow: Flow, mixture: str, checkpoint: str, report: str) -> None:
    before = sorted(flow.store.glob("**/manifest.json"))
    assert run(*flow.build(flow.store)) == mixture
    assert run(*flow.fit(flow.store, mixture)) == checkpoint
    assert run("evalkit", "score", flow.recipe("eval"), "--checkpoint", checkpoint, "--out", flow.store) == report
    assert sorted(flow.store.glob("**/manifest.json")) == before


def test_training_lowers_the_loss_and_the_report_scores_every_source(checkpoint: str, report: str) -> None:
    first, *_, last = losses(Path(checkpoint))
    assert last < first
    scores = json.loads((Path(report) / "manifest.json").read_text())["scores"]
    assert {"notes", "web"} <= {score["source"] for score in scores}
    assert all(score["low"] <= score["value"] <= score["high"] for score in scores)
