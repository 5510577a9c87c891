"""`trainer audit`: a step → what it read, window by window. From run.json and the mixture alone.

The documents of a window are found by arithmetic; with `windows`, each of them is read as it was learned.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from manifest.artifact import Opened, open_artifact, open_streams, resolve
from manifest.errors import RecipeError
from manifest.exposure import documents_of_step
from manifest.mixture import Mixture
from trainer.data.fim import COUNTS
from trainer.data.loader import step_source
from trainer.data.windows import windows
from trainer.run import Run, read_run

HEADER = "window\tview\tstream\tepoch\tblock\tfirst\tstop\tdocument"
WINDOWS_HEADER = "\t".join(["window", "view", "stream", "epoch", "block", "first", "targets", "fim", *COUNTS])


@dataclass(frozen=True)
class _Subject:
    """A run with its mixture. names: of streams, by tokens id."""

    run: Run
    opened: Opened
    mixture: Mixture
    names: dict[str, str]


def audit(directory: Path, step: int) -> Iterator[str]:
    """A header, and a tab-separated line per document of each window. Raises RecipeError if there is no such step."""
    subject = _open(directory, step)
    streams = {subject.mixture.streams[name].id: stream for name, stream in open_streams(subject.opened).items()}
    yield HEADER
    for window in documents_of_step(subject.run.timeline, streams, step):
        for span in window.spans:
            where = f"{window.epoch}\t{window.block}\t{span.start}\t{span.stop}\t{span.document}"
            yield f"{window.window}\t{window.view}\t{subject.names[window.stream]}\t{where}"


def audit_windows(directory: Path, step: int) -> Iterator[str]:
    """A header, and a tab-separated line per window: its targets, the rate of fill-in-the-middle, and what that did.

    Raises RecipeError if there is no such step, ArtifactError if what it reads is not what it was.
    """
    subject = _open(directory, step)
    timeline = subject.run.timeline
    batch = step_source(subject.opened, timeline, rank=0, world=1, phases=subject.run.recipe.phases).read(step)
    whole = timeline.step(step)
    numbers = range(whole.first, whole.stop)
    yield WINDOWS_HEADER
    for number, window, weights, counts in zip(
        numbers, windows(timeline, whole.segment, numbers), batch.weights, batch.fim, strict=True
    ):
        fields = [number, window.view, subject.names[window.stream], window.epoch, window.block, window.start]
        fields += [int(weights.sum()), subject.mixture.views[window.view].fim or 0, *counts.tolist()]
        yield "\t".join(map(str, fields))


def _open(directory: Path, step: int) -> _Subject:
    run = read_run(directory)
    if not 0 <= step < run.timeline.total_steps:
        raise RecipeError(f"--step {step}: run {run.name} has the steps 0 to {run.timeline.total_steps - 1}")
    opened = open_artifact(resolve(str(directory.absolute()), run.mixture.uri), kind="mixture")
    mixture = opened.manifest
    assert isinstance(mixture, Mixture)
    return _Subject(run, opened, mixture, {stream.id: name for name, stream in mixture.streams.items()})
