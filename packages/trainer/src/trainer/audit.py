"""`trainer audit`: a step → the documents that it read, window by window. By arithmetic, from run.json alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from manifest.artifact import open_artifact, open_streams, resolve
from manifest.errors import RecipeError
from manifest.exposure import documents_of_step
from manifest.mixture import Mixture
from trainer.run import read_run

HEADER = "window\tview\tstream\tepoch\tblock\tfirst\tstop\tdocument"


def audit(directory: Path, step: int) -> Iterator[str]:
    """A header, and a tab-separated line per document of each window. Raises RecipeError if there is no such step."""
    run = read_run(directory)
    if not 0 <= step < run.timeline.total_steps:
        raise RecipeError(f"--step {step}: run {run.name} has the steps 0 to {run.timeline.total_steps - 1}")
    mixture = open_artifact(resolve(str(directory.absolute()), run.mixture.uri), kind="mixture")
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    names = {stream.id: name for name, stream in manifest.streams.items()}
    streams = {manifest.streams[name].id: stream for name, stream in open_streams(mixture).items()}
    yield HEADER
    for window in documents_of_step(run.timeline, streams, step):
        for span in window.spans:
            where = f"{window.epoch}\t{window.block}\t{span.start}\t{span.stop}\t{span.document}"
            yield f"{window.window}\t{window.view}\t{names[window.stream]}\t{where}"
