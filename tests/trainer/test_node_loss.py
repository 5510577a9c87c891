"""A machine of the cluster is lost in the middle of a run: the run ends by itself, on the machine that is left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from manifest.artifact import Opened
from manifest.checkpoint import Checkpoint
from manifest.store import LocalStore
from trainer.events import events

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]

STEPS = 400
CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
print(cluster.address, flush=True)
sys.stdin.readline()
cluster.remove_node(nodes.pop(), allow_graceful=False)
sys.stdin.readline()
cluster.shutdown()
"""


def test_a_run_outlives_a_machine(tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe) -> None:
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "d2" * 32, "RAY_USAGE_STATS_ENABLED": "0"}
    variables = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | token
    cluster = subprocess.Popen(
        [sys.executable, "-c", CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=variables
    )
    assert cluster.stdin is not None
    assert cluster.stdout is not None
    variables["RAY_ADDRESS"] = cluster.stdout.readline().strip()
    mixture, out = make_mixture({"main": {"a": 2 * STEPS}}), tmp_path / "out"
    recipe = make_recipe(save={"every_tokens": 128 * 10, "keep_full": 2})
    command = ["trainer.cli", "fit", recipe, "--mixture", mixture.uri, "--out", out, "--workers", "ray"]
    run = subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=variables,
    )
    while not list(out.glob("runs/*/checkpoints/0000001*/manifest.json")):
        assert run.poll() is None, run.communicate()
        time.sleep(0.1)
    print("lose", file=cluster.stdin, flush=True)
    said, err = run.communicate(timeout=300)
    print("end", file=cluster.stdin, flush=True)
    cluster.wait()
    assert run.returncode == 0, err
    final = LocalStore(Path(said.strip()).parent).manifest(Path(said.strip()).name)
    assert isinstance(final, Checkpoint)
    assert final.producer is not None
    assert (final.step, final.producer.measured["workers"]) == (STEPS, 1)
    (event,) = events(next(out.glob("runs/*")))
    assert 10 <= event["step"] < STEPS
