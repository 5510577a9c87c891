from __future__ import annotations

import pytest

from manifest import progress as module
from manifest.progress import Progress, listening, note, report, span


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as the only element; it stands still unless it is set."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def step(done: int, stage: str = "a", total: int = 10) -> Progress:
    return Progress(stage=stage, done=done, total=total, unit="tasks")


def test_a_stage_is_heard_at_its_beginning_now_and_then_and_at_its_end(clock: list[float]) -> None:
    heard: list[Progress | str] = []
    with listening(heard.append):
        for done in range(11):
            report(step(done))
            clock[0] += 0.2
    assert [one.done for one in heard if isinstance(one, Progress)] == [0, 3, 6, 9, 10]


def test_every_stage_has_its_own_pace_and_an_end_is_heard_once(clock: list[float]) -> None:
    heard: list[Progress | str] = []
    with listening(heard.append):
        for stage in "ab":
            for done in (0, 10, 10):
                report(step(done, stage))
    assert heard == [step(0), step(10), step(0, "b"), step(10, "b")]


def test_notes_are_heard_all_and_nobody_hears_after_the_end() -> None:
    heard: list[Progress | str] = []
    with listening(heard.append):
        note("one")
        note("two")
    note("three")
    report(step(0))
    assert heard == ["one", "two"]


def test_a_listener_can_end_the_work() -> None:
    def enough(what: Progress | str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), listening(enough):
        report(step(0))
    report(step(1))


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "0 s"), (119.4, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h")]
)
def test_a_time_is_said_as_a_person_would(seconds: float, said: str) -> None:
    assert span(seconds) == said
