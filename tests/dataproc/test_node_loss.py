"""A machine of the cluster is lost in the middle of a build: the build ends by itself, with the same mixture."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from manifest.store import LocalStore

Make = Callable[..., Any]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
print(cluster.address, flush=True)
for line in sys.stdin:
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("removed", flush=True)
cluster.shutdown()
"""


@pytest.fixture
def environment() -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """The environment of a cluster of two machines with two CPUs each, and what makes it lose one."""
    variables = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "d1" * 32, "RAY_USAGE_STATS_ENABLED": "0"}
    variables.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=variables,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    variables["RAY_ADDRESS"] = process.stdout.readline().strip()

    def lose_one() -> None:
        process.stdin.write("lose\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        assert process.stdout.readline() == "removed\n"  # type: ignore[union-attr]

    yield variables, lose_one
    process.stdin.close()
    process.wait()


def test_a_build_outlives_a_machine(
    tmp_path: Path, write_jsonl: Make, words: Make, recipe: Make, build: Make, environment: Any
) -> None:
    rng = random.Random(1)
    for source in "ab":
        for file in range(12):
            texts = [" ".join(words(10_000 * ord(source) + 1000 * file + n, 300)) for n in range(120)]
            texts += [rng.choice(texts) + " more" for _ in range(40)]
            write_jsonl(tmp_path / "raw" / source / f"{file}.jsonl", [{"text": text} for text in texts])
    made = recipe(dedup={"scope": "global"}, holdout={"fraction": 0.05})
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(made.model_dump(mode="json", exclude_none=True)))
    variables, lose_one = environment
    store = tmp_path / "store"
    command = [sys.executable, "-m", "dataproc.cli", "build", file, "--raw", tmp_path / "raw", "--out", store]
    running = subprocess.Popen([*command, "--workers", "ray"], env=variables, stdout=subprocess.PIPE, text=True)
    while not list(store.glob(".drafts/clusters--*/.work/notes/*/*.json")):
        assert running.poll() is None
        time.sleep(0.02)
    lose_one()
    out, _ = running.communicate(timeout=300)
    assert running.returncode == 0
    whole = build(made, tmp_path / "raw", tmp_path / "serial")
    found = LocalStore(store).manifest(f"mixtures/{Path(out.strip()).name}")
    assert found is not None
    assert found.id == whole.id
