"""Workers that are Ray actors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from dataproc import progress
from dataproc.lean import without_pandas
from dataproc.workers.cluster import cluster_cpus
from dataproc.workers.verbs import MEMORY_BYTES, Task, Workers
from manifest.errors import WinnowError

RETRIES = 3
PATIENCE_S = 10.0
"""So long no word is lost over a cluster that has no CPU to give."""


class Ray(Workers):
    """Ray actors that live as long as this, so that compiled kernels are loaded once. `close` gives their CPUs back.

    An actor gets work once the cluster has a CPU for it. One that dies is replaced, and its task is given to whichever
    actor is free: tasks write aside and rename.
    """

    def __init__(self, count: int, memory_bytes: int = MEMORY_BYTES) -> None:
        self.memory_bytes = memory_bytes
        cpus = cluster_cpus()
        if count > cpus:
            progress.say(f"{count} workers were asked for, but the cluster has {cpus} CPUs: {cpus} workers start")
        self.count = min(count, cpus)
        self._idle: list[Any] = []
        self._busy: dict[Any, Any] = {}  # by the call that they carry out: a task, or just to say that they are there
        self._patient = False
        for _ in range(self.count):
            self._hire()

    def close(self) -> None:
        """Ends all actors, whatever they do."""
        import ray

        for actor in (*self._idle, *self._busy.values()):
            ray.kill(actor)

    def _hire(self) -> None:
        import ray

        actor = ray.remote(num_cpus=1)(_Worker).remote()
        self._busy[actor.ready.remote()] = actor

    def _replace(self, dead: Any) -> None:
        """A machine that is lost takes several actors along, so the idle ones have to answer again."""
        import ray

        ray.kill(dead)  # it may be out of reach only
        self._busy |= {actor.ready.remote(): actor for actor in self._idle}
        self._idle.clear()
        self._hire()

    def _run(self, tasks: Sequence[Task]) -> Iterator[None]:
        import ray

        waiting = list(reversed(tasks))
        running: dict[Any, Task] = {}
        deaths: Counter[Task | None] = Counter()  # None: of actors that had no task
        while waiting or running:
            while waiting and self._idle:
                actor, task = self._idle.pop(), waiting.pop()
                call = actor.run.remote(task)
                self._busy[call], running[call] = actor, task
            call = self._next_call(impatient=not running)
            actor, done = self._busy.pop(call), running.pop(call, None)
            try:
                ray.get(call)
            except ray.exceptions.RayTaskError as error:
                self._idle.append(actor)
                if done is None:  # left from an earlier run, which has raised its own error
                    continue
                if running:  # they would write behind our back; and what they finish is noted
                    ray.wait(list(running), num_returns=len(running))
                raise error.cause if isinstance(error.cause, Exception) else error from None
            except ray.exceptions.RayError as error:
                self._replace(actor)
                deaths[done] += 1
                self._check(deaths[done], done, error)
                if done is not None:
                    waiting.append(done)
                continue
            self._idle.append(actor)
            deaths[done] = 0
            if done is not None:
                yield None

    def _next_call(self, *, impatient: bool) -> Any:
        """The next of the calls that is over. impatient: if that takes long, the user hears why, once."""
        import ray

        if impatient and not self._patient:
            done, _ = ray.wait(list(self._busy), timeout=PATIENCE_S)
            if done:
                return done[0]
            self._patient = True
            progress.say("waiting for a worker to start: other work may hold the CPUs of the Ray cluster")
        return ray.wait(list(self._busy))[0][0]

    def _check(self, deaths: int, task: Task | None, error: Exception) -> None:
        """Raises WinnowError if workers have died too often over a task, or, without one, one after the other."""
        if deaths > (RETRIES if task is not None else RETRIES + self.count):
            where = "over the same task" if task is not None else "before they got work"
            raise WinnowError(
                f"a worker died {deaths} times {where}, perhaps for want of memory; run the same command again with "
                f"fewer workers: it continues from here ({str(error).strip()})"
            ) from error


class _Worker:
    """Runs tasks in a Ray worker process."""

    def __init__(self) -> None:
        without_pandas()

    def ready(self) -> None:
        """Returns once the worker runs."""

    def run(self, task: Task) -> None:
        task()
