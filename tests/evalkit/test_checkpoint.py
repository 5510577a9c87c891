from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evalkit.checkpoint import newest_checkpoint, open_subject
from manifest.artifact import Opened
from manifest.errors import NotAnArtifact, WrongArtifact


def test_the_newest_checkpoint_is_the_one_with_the_most_steps(untrained: Path, trained: Path) -> None:
    assert newest_checkpoint(trained.parent.parent) == str(trained)


def test_a_run_without_checkpoints_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAnArtifact, match="has no published checkpoints; give --run"):
        newest_checkpoint(tmp_path)


def test_a_checkpoint_leads_to_its_mixture_tokenizer_and_held_out_documents(mixture: Opened, trained: Path) -> None:
    subject = open_subject(trained)
    assert subject.mixture.manifest.id == mixture.manifest.id
    assert subject.tokenizer.manifest.kind == "tokenizers"
    assert subject.heldout.manifest.kind == "heldout"
    assert subject.window == 32  # the last phase's


def test_a_store_may_be_moved(mixture: Opened, trained: Path, tmp_path: Path) -> None:
    store = Path(mixture.uri).parent.parent
    shutil.copytree(store, tmp_path / "moved")
    subject = open_subject(tmp_path / "moved" / trained.relative_to(store))
    assert Path(subject.heldout.uri).is_relative_to(tmp_path / "moved")


def test_a_mixture_without_held_out_documents_is_refused(
    tmp_path: Path, mixture_of: Callable[..., Opened], checkpoint_of: Callable[..., Path]
) -> None:
    bare = mixture_of(tmp_path, documents=10, holdout=0)
    with pytest.raises(WrongArtifact, match=r"has no held-out documents.*holdout: \{fraction"):
        open_subject(checkpoint_of(bare, 0))
