from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest

from manifest.errors import InputError
from trainer.events import add, events
from trainer.launch import _pause
from trainer.launch_ray import _named
from trainer.restarts import WorkerError, restarting


class Runs:
    """Attempts with an end that is told beforehand: the step they reach, and what they raise there."""

    def __init__(self, *ends: tuple[int, Exception | None]) -> None:
        self.ends, self.step, self.told = list(ends), 0, []  # type: ignore[var-annotated]
        self.pauses: list[float] = []
        self.stopped = False

    def attempt(self) -> None:
        self.step, error = self.ends.pop(0)
        if error is not None:
            raise error

    def go(self, most: int, *, stopped: bool = False) -> None:
        def restarted(error: WorkerError, step: int, failures: int) -> None:
            self.told.append((step, failures))

        self.stopped = stopped
        restarting(
            self.attempt,
            lambda: self.step,
            most=most,
            stopped=lambda: self.stopped,
            restarted=restarted,
            pause=self.pause,
        )

    def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


def test_restarts_are_counted_from_the_newest_checkpoint_on() -> None:
    lost = WorkerError("lost")
    runs = Runs((10, lost), (10, lost), (20, lost), (20, lost), (30, None))
    runs.go(2)
    assert runs.told == [(10, 1), (10, 2), (20, 1), (20, 2)]


def test_a_worker_that_is_lost_again_and_again_ends_the_run() -> None:
    runs = Runs(*[(10, WorkerError("lost"))] * 4, (10, None))
    with pytest.raises(WorkerError, match="lost"):
        runs.go(2)
    assert runs.told == [(10, 1), (10, 2)]


def test_what_would_only_fail_again_is_raised_at_once_and_so_is_a_loss_after_a_stop() -> None:
    with pytest.raises(InputError):
        Runs((10, InputError("no such mixture")), (20, None)).go(3)
    with pytest.raises(WorkerError):
        Runs((10, WorkerError("lost")), (20, None)).go(3, stopped=True)


def test_restarts_without_progress_wait_longer_each_time_up_to_a_minute() -> None:
    lost = WorkerError("lost")
    runs = Runs(*[(10, lost)] * 6, (20, lost), (30, None))
    runs.go(6)
    assert runs.pauses == [0, 20, 40, 60, 60, 60, 0]


def test_a_run_that_is_asked_to_stop_while_it_waits_is_not_started_again() -> None:
    class Stopped(Runs):
        def pause(self, seconds: float) -> None:
            self.stopped = seconds > 0

    runs = Stopped(*[(10, WorkerError("lost"))] * 2, (20, None))
    with pytest.raises(WorkerError):
        runs.go(3)
    assert len(runs.ends) == 1


def test_a_pause_ends_when_the_run_is_asked_to_stop() -> None:
    answers = iter([False, True])
    _pause(lambda: None, lambda: next(answers), 3600.0)
    assert next(answers, None) is None


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), InputError),
        (OSError(errno.EIO, "Input/output error"), WorkerError),
        (RuntimeError("CUDA error"), WorkerError),
        (InputError("no such mixture"), InputError),
    ],
)
def test_what_ends_a_worker_on_ray_is_for_the_user_where_it_is_locally(cause: Exception, expected: type) -> None:
    assert type(_named(SimpleNamespace(cause=cause))) is expected


def test_events_are_read_as_they_were_written_but_for_a_line_that_was_cut_off(tmp_path) -> None:  # type: ignore[no-untyped-def]
    add(tmp_path, "restart", 10, why="lost")
    add(tmp_path, "restart", 20, why="again")
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "resta')
    found = [(row["event"], row["step"], row["why"]) for row in events(tmp_path)]
    assert found == [("restart", 10, "lost"), ("restart", 20, "again")]
