"""A run's workers as Ray actors: all of them at once, on a running cluster or on one that is started here.

N is by default one per GPU, or per CPU where there is none; the workers start once a cluster has room for all of them.
It counts as large as it is: one that grows on demand has to grow first. The trainer's one door to Ray.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from functools import partial
from types import ModuleType
from typing import Any

from manifest.errors import InputError, WinnowError, disk_error
from manifest.ray_cluster import join, lock_out_others, start
from manifest.store import LocalStore
from trainer.place import Place, free_port, process_environment
from trainer.progress import say
from trainer.restarts import WorkerError
from trainer.run import Run
from trainer.workers import POLL_S, Asked, Tick, Workers

PATIENCE_S = 2.0
"""So long no word is lost over a Ray cluster that is busy."""


class _Actor:
    """A worker in a Ray actor. `stop` is answered while `train` runs: the actor has two threads."""

    def __init__(self) -> None:
        self.asked = False

    def meeting_point(self) -> tuple[str, int]:
        """Where the others find this worker, if it is the first."""
        import ray

        address = ray.util.get_node_ip_address()
        return address, free_port(address)

    def train(self, store: str, run: str, place: Place) -> None:
        from trainer.worker import work

        work(store, run, place, lambda: self.asked)

    def stop(self) -> None:
        self.asked = True


def run_on_ray(workers: Workers, most: int, store: LocalStore, run: Run, tick: Tick, asked: Asked) -> None:
    """Runs at most `most` workers to their end. Raises as launch.launch does."""
    with _ray(workers) as ray, _gang(ray, workers.count, most, tick, asked) as (gang, bundle, count):
        actors = [_actor(ray, gang, bundle, rank) for rank in range(count)]
        with _worker_errors():
            address, port = ray.get(actors[0].meeting_point.remote())
        # An actor sees only its own GPU, so it is the first on its machine.
        places = [Place(rank, count, 0, address, port) for rank in range(count)]
        parts = [
            actor.train.remote(str(store.root), run.name, place) for actor, place in zip(actors, places, strict=True)
        ]
        _wait_for_actors(actors, parts, tick, asked)


@contextmanager
def _gang(
    ray: ModuleType, wanted: int | None, most: int, tick: Tick, asked: Asked
) -> Iterator[tuple[Any, dict[str, int], int]]:
    """Room on a cluster for all workers: where it is, what each takes, how many they are. Their actors end with it.

    All or none: two runs that each held a half of the cluster would wait for each other forever.
    """
    while True:
        bundle, count = _bundles(wanted, most, ray.nodes())
        gang = ray.util.placement_group([bundle] * count, strategy="PACK")
        try:
            if _is_there(gang, bundle, count, partial(_is_as_large, ray, wanted, most, (bundle, count)), tick, asked):
                yield gang, bundle, count
                return
        finally:
            ray.util.remove_placement_group(gang)


def _is_as_large(ray: ModuleType, wanted: int | None, most: int, before: tuple[dict[str, int], int]) -> bool:
    """Whether a cluster has room for as many workers as before: a machine that was lost counts for a while."""
    return _bundles(wanted, most, ray.nodes()) == before


def _bundles(count: int | None, most: int, nodes: list[dict[str, Any]]) -> tuple[dict[str, int], int]:
    """What a worker takes, and how many of them (by default as many as the machines have room for, at most `most`).

    Raises InputError if the machines, were they idle, had no room for as many.
    """
    machines = [node["Resources"] for node in nodes if node["Alive"]]
    has = {kind: int(sum(machine.get(kind, 0) for machine in machines)) for kind in ("CPU", "GPU")}
    bundle = {"CPU": 1, "GPU": 1} if has["GPU"] else {"CPU": 1}
    room = sum(min(int(machine.get(kind, 0)) for kind in bundle) for machine in machines)
    wanted = min(count or max(room, 1), most)
    if wanted > room:
        raise InputError(
            f"{_needs(bundle, wanted)} are needed for {wanted} workers, but the Ray cluster has {_needs(has, 1)} in "
            f"all, room for {room}; use --workers ray:{max(room, 1)}, or add machines first"
        )
    return bundle, wanted


def _needs(bundle: Mapping[str, int], count: int) -> str:
    """Such as 2 CPUs and 2 GPUs."""
    amounts = {kind: amount * count for kind, amount in bundle.items() if amount}
    return " and ".join(f"{amount} {kind}{'s' * (amount > 1)}" for kind, amount in amounts.items()) or "no CPU"


def _is_there(
    gang: Any, bundle: Mapping[str, int], count: int, as_large: Callable[[], bool], tick: Tick, asked: Asked
) -> bool:
    """Waits for the room; False once the cluster is no longer as large as when it was asked for.

    Raises KeyboardInterrupt if the run is asked to stop before it has begun.
    """
    import ray

    ready, started, said = gang.ready(), time.monotonic(), False
    while not ray.wait([ready], timeout=POLL_S)[0]:
        if asked():
            raise KeyboardInterrupt
        tick()
        if time.monotonic() - started > PATIENCE_S:
            if not as_large():
                return False
            if not said:
                said = True
                say(f"waiting for {_needs(bundle, count)} of the Ray cluster, which other work holds")
    return True


def _actor(ray: ModuleType, gang: Any, bundle: Mapping[str, int], rank: int) -> Any:
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    make = ray.remote(
        num_cpus=bundle["CPU"],
        num_gpus=bundle.get("GPU", 0),
        max_concurrency=2,
        runtime_env={"env_vars": process_environment()},
        scheduling_strategy=PlacementGroupSchedulingStrategy(gang, placement_group_bundle_index=rank),
    )
    return make(_Actor).remote()


@contextmanager
def _ray(workers: Workers) -> Iterator[ModuleType]:
    """Ray, connected to a running cluster or to one that is started here and ends with the block.

    What is started here stays small: data and weights go through files and gloo, not through Ray.
    """
    running = workers.address if workers.address != "ray" else os.environ.get("RAY_ADDRESS") or None
    if running is None:
        lock_out_others()
    import ray  # after the environment, which Ray reads when it is imported

    on_sigterm = signal.getsignal(signal.SIGTERM)
    if running is not None:
        join(ray, running)
    else:
        start(ray, workers.count, include_dashboard=False)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray has put one in its place that ends this process
    with redirect_stdout(sys.stderr):  # Ray prints there what happens to its machines; results are ours
        try:
            yield ray
        finally:
            ray.shutdown()


def cluster(workers: Workers) -> AbstractContextManager[ModuleType]:
    """Ray, for other work than a run's: connected to a cluster, or started here. Raises InputError as `launch` does."""
    return _ray(workers)


def _named(error: Any) -> WinnowError:
    """What a task raised, by the rule of a local worker's (run_command): a full disk is the user's to mend."""
    cause = error.cause
    known = disk_error(cause) if isinstance(cause, OSError) else cause
    return known if isinstance(known, WinnowError) else WorkerError(f"a worker failed: {error}")


@contextmanager
def _worker_errors() -> Iterator[None]:
    """What a worker raised, or that it is lost, as a WinnowError."""
    import ray

    try:
        yield
    except ray.exceptions.RayTaskError as error:
        raise _named(error) from error
    except ray.exceptions.RayError as error:
        raise WorkerError(f"a worker is lost: {error}; the same command continues") from error


def _wait_for_actors(actors: list[Any], parts: list[Any], tick: Tick, asked: Asked) -> None:
    import ray

    passed_on = False
    while parts:
        done, parts = ray.wait(parts, num_returns=len(parts), timeout=POLL_S)
        with _worker_errors():
            ray.get(done)
            if asked() and not passed_on:
                passed_on = True
                ray.get([actor.stop.remote() for actor in actors])
        tick()
