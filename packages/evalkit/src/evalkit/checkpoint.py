"""What is scored: a checkpoint, and what it was trained from.

    checkpoint ──► its last mixture ──► tokenizer, held-out documents (or those of another mixture)

Everything is found through the manifests' own references and held against the ids that they name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from manifest.artifact import Opened, locate, open_artifact, resolve
from manifest.checkpoint import Checkpoint
from manifest.errors import CorruptArtifact, NotAnArtifact, WrongArtifact
from manifest.identity import short
from manifest.mixture import Mixture
from manifest.record import Artifact, Reference


@dataclass(frozen=True)
class Subject:
    """A checkpoint with the artifacts that are needed to score it. heldout: its own mixture's, or another's."""

    checkpoint: Opened
    mixture: Opened
    tokenizer: Opened
    heldout: Opened

    @property
    def record(self) -> Checkpoint:
        assert isinstance(self.checkpoint.manifest, Checkpoint)
        return self.checkpoint.manifest

    @property
    def mixture_record(self) -> Mixture:
        assert isinstance(self.mixture.manifest, Mixture)
        return self.mixture.manifest

    @property
    def window(self) -> int:
        """Tokens of a window: the seq_len of the run's last phase."""
        return self.record.timeline.paces[-1].seq_len


def newest_checkpoint(run: str | Path) -> str:
    """The URI of a run's checkpoint with the most steps. run: the directory `<store>/runs/<run>`.

    Raises NotAnArtifact if it has none.
    """
    store, name = locate(run)
    steps = [step for step in store.list(f"{name}/checkpoints") if step.isdigit()]
    if not steps:
        raise NotAnArtifact(
            f"{store.where(name)} has no published checkpoints; give --run a directory <store>/runs/<run> in which "
            "`trainer fit` has published one, or name a checkpoint with --checkpoint"
        )
    return store.where(f"{name}/checkpoints/{max(steps, key=int)}")


def open_newest(uri: str | Path) -> Subject:
    """The checkpoint at `uri`, or the newest of the run there. Raises as `open_subject` and `newest_checkpoint` do."""
    store, name = locate(uri)
    is_run = bool(store.list(f"{name}/checkpoints"))
    return open_subject(newest_checkpoint(uri) if is_run else uri)


def open_subject(uri: str | Path, heldout_of: str | Path | None = None) -> Subject:
    """A checkpoint and all that scoring it needs. heldout_of: the mixture whose held-out documents are scored; its own
    if None.

    Raises ArtifactError: something is missing or not what the manifests say, or the mixture held nothing out.
    """
    checkpoint = open_artifact(uri, kind="checkpoint")
    mixture = _open(checkpoint, _mixture_of(checkpoint))
    held = mixture if heldout_of is None else open_artifact(heldout_of, kind="mixture")
    return Subject(checkpoint, mixture, _tokenizer_of(mixture), _heldout_of(held))


def _mixture_of(checkpoint: Opened) -> Reference:
    """The mixture of the run's last segment."""
    record = checkpoint.manifest
    assert isinstance(record, Checkpoint)
    segments = record.timeline.order.segments
    for reference in record.inputs.values():
        if reference.kind == "mixture" and segments and reference.id == segments[-1].mixture:
            return reference
    raise CorruptArtifact(
        f"{checkpoint.uri} does not say which mixture it was trained on; train again with this version of Winnow"
    )


def _open(base: Opened, reference: Reference) -> Opened:
    """What an artifact refers to, if it is still what it was."""
    opened = open_artifact(resolve(base.uri, reference.uri), kind=reference.kind)
    if opened.manifest.id != reference.id:
        raise WrongArtifact(
            f"{opened.uri} has id {short(opened.manifest.id)}, but {base.uri} was made with {short(reference.id)}; "
            "restore it"
        )
    return opened


def _heldout_of(mixture: Opened) -> Opened:
    record = mixture.manifest
    assert isinstance(record, Mixture)
    if record.heldout is None:
        raise WrongArtifact(
            f"{mixture.uri} has no held-out documents, so there is nothing that the model has not seen; set "
            "`holdout: {fraction: …}` in the data recipe, build the mixture again and train on it"
        )
    return _open(mixture, record.heldout)


def _tokenizer_of(mixture: Opened) -> Opened:
    record = mixture.manifest
    assert isinstance(record, Mixture)
    opened = open_artifact(resolve(mixture.uri, record.tokenizer.uri))
    found = opened.manifest.digest if isinstance(opened.manifest, Artifact) else ""
    if found != record.tokenizer.digest:
        raise WrongArtifact(
            f"{opened.uri} is not the tokenizer of {mixture.uri} ({short(record.tokenizer.digest)}); restore it"
        )
    return opened
