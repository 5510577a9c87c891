"""Which checkpoints of a run keep the optimiser's state, and what becomes of the others.

The newest `keep` full checkpoints are left alone, so the newest good one is never touched. An older one becomes
weights only: its manifest is replaced in one rename, and then the files it no longer names are deleted. Or it is
removed: renamed out of the way, and then deleted. A process killed in between leaves files that the next call deletes.
"""

from __future__ import annotations

import shutil

from manifest.checkpoint import Checkpoint
from manifest.record import MANIFEST
from manifest.store import DRAFTS, LocalStore, write_atomic
from trainer.run import Run, checkpoints


def retain(store: LocalStore, run: Run) -> None:
    """Applies the recipe's `keep_full` and `publish` to the run's checkpoints."""
    keep, publish = run.recipe.save.keep_full, run.recipe.save.publish
    full = 0
    for record in checkpoints(store, run):
        full += record.full
        if record.full and full <= keep:
            continue
        if publish == "recent" and record.step > 0:
            _remove(store, run, record)
        else:
            _keep_weights(store, run, record)


def _keep_weights(store: LocalStore, run: Run, record: Checkpoint) -> None:
    directory = store.root / run.checkpoint_path(record.step)
    if record.full:
        record = record.model_copy(update={"full": False, "moments": ()}).identified()
        write_atomic(directory / MANIFEST, record.to_json())
    named = {MANIFEST, *(entry.path for entry in record.files())}
    for file in directory.iterdir():
        if file.name not in named:
            file.unlink()


def _remove(store: LocalStore, run: Run, record: Checkpoint) -> None:
    aside = store.root / DRAFTS / f"removed--{run.name}--{record.step:08d}"
    aside.parent.mkdir(exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    (store.root / run.checkpoint_path(record.step)).rename(aside)
    shutil.rmtree(aside)
