"""What an export stands on: a checkpoint, and through its last mixture the tokenizer and the held-out documents.

checkpoint ──► its last mixture ──► tokenizer, held-out documents
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from manifest.artifact import Opened, open_artifact, resolve, verify
from manifest.checkpoint import Checkpoint
from manifest.errors import ArtifactError, CorruptArtifact, NotAnArtifact, WrongArtifact
from manifest.identity import short
from manifest.mixture import Mixture
from manifest.record import Reference
from trainer.model.shape import Shape
from trainer.run import RUN
from trainer.stored import Stored, stored
from trainer.tokenizer import find_tokenizer

WITHOUT = "Restore it, or export without it: --without-tokenizer"


@dataclass(frozen=True)
class Source:
    """A checkpoint, whole. stored: its parameters."""

    opened: Opened
    shape: Shape
    stored: Stored

    @property
    def record(self) -> Checkpoint:
        assert isinstance(self.opened.manifest, Checkpoint)
        return self.opened.manifest

    @property
    def length(self) -> int:
        """Tokens of the longest window that it was trained on; before its first step, of the first that it would be."""
        paces = self.record.timeline.paces
        return max([pace.seq_len for pace in paces if pace.first_step < self.record.step] or [paces[0].seq_len])

    def parameter(self, name: str) -> Tensor:
        """A parameter of the plain decoder, with what was trained beside it."""
        return self.stored.parameter(name)


def open_source(uri: str) -> Source:
    """The checkpoint at a path, with every byte of it checked.

    Raises ArtifactError: there is none, it is damaged, or its tensors are not those of the model that it names.
    """
    try:
        opened = open_artifact(uri, kind="checkpoint")
    except NotAnArtifact:
        hint_at_checkpoints(Path(uri))
        _hint_at_a_run(Path(uri))
        raise
    verify(opened.uri)
    record = opened.manifest
    assert isinstance(record, Checkpoint)
    shape = Shape.model_validate(record.state["model"])
    return Source(opened, shape, stored(opened))


def hint_at_checkpoints(path: Path) -> None:
    """Raises NotAnArtifact that names the newest checkpoint, if a run's directory was given."""
    published = sorted(entry.parent for entry in path.glob("checkpoints/*/manifest.json"))
    if (path / RUN).is_file() and published:
        raise NotAnArtifact(f"{path} is a run; give one of its checkpoints, such as {published[-1]}")


def _hint_at_a_run(path: Path) -> None:
    """Raises NotAnArtifact that says how a Hugging Face directory becomes a checkpoint, if one was given."""
    if (path / "config.json").is_file():
        raise NotAnArtifact(
            f"{path} is a Hugging Face directory; give a checkpoint. Step 0 of a run from it (`trainer fit … --base "
            f"{path}`) is one, of the same weights; onto the directory itself PEFT merges adapters"
        )


def mixture_of(source: Source) -> Opened:
    """The mixture of the run's last segment. Raises ArtifactError if it is gone, or another one now."""
    segments = source.record.timeline.order.segments
    for reference in source.record.inputs.values():
        if reference.kind == "mixture" and segments and reference.id == segments[-1].mixture:
            return _follow(source.opened, reference, advice=f"its tokenizer goes with an export. {WITHOUT}")
    raise CorruptArtifact(f"{source.opened.uri} does not say which mixture it was trained on; --without-tokenizer")


def tokenizer_of(mixture: Opened) -> Opened:
    """The tokenizer that an export takes along, its files checked. Raises ArtifactError."""
    opened = find_tokenizer(mixture, why="was made with a tokenizer that an export takes along,", advice=WITHOUT)
    verify(opened.uri)
    return opened


def heldout_of(mixture: Opened) -> Opened | None:
    """The held-out documents; None if nothing was held out. Raises ArtifactError if they are gone."""
    record = mixture.manifest
    assert isinstance(record, Mixture)
    if record.heldout is None:
        return None
    return _follow(mixture, record.heldout, advice="restore it, or leave the perplexity out: --heldout-tokens 0")


def _follow(base: Opened, reference: Reference, *, advice: str) -> Opened:
    uri = resolve(base.uri, reference.uri)
    try:
        opened = open_artifact(uri, kind=reference.kind)
    except NotAnArtifact as error:
        raise NotAnArtifact(f"{uri}: the {reference.kind} of {base.uri} is not there; {advice}") from error
    except ArtifactError as error:
        raise type(error)(f"{error}; {advice}") from error
    if opened.manifest.id != reference.id:
        raise WrongArtifact(
            f"{uri} is {short(opened.manifest.id)}; {base.uri} was made with {short(reference.id)}; {advice}"
        )
    return opened
