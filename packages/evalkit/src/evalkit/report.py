"""Checkpoint + recipe → a published report, once per request.

    reports/<recipe>-<fingerprint>/ documents-00000.parquet   a row per document: id, source, bytes, tokens, bits
                                    report.html, report.md    the same numbers to read
                                    manifest.json             kind report: the scores, and what they stand on

The fingerprint is over the recipe, the ids of what is scored and compared with, and the libraries that shape a score.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dataproc import progress
from dataproc.documents import ShardWriter, file_sha256
from evalkit import compare, heldout
from evalkit.checkpoint import Subject
from evalkit.page import pages
from evalkit.recipe import EvalRecipe
from evalkit.tasks import bits_per_byte
from evalkit.trained_on import trained_on
from manifest.artifact import Opened, open_artifact, relative_uri
from manifest.identity import short
from manifest.record import FileEntry, Producer, Reference, fingerprint, now
from manifest.report import Report
from manifest.store import Store
from trainer.model.shape import Shape

STAGE = "score/2"
LIBRARIES = ("numpy", "tokenizers", "torch")


def score(recipe: EvalRecipe, subject: Subject, store: Store, *, compared: Opened | None, batch_tokens: int) -> Opened:
    """The report of a recipe over a checkpoint: the published one, or a new one. compared: a report to compare with.

    Raises ArtifactError if the checkpoint cannot be scored, or not be compared with that report.
    """
    asked = fingerprint(
        STAGE,
        config=_config(recipe),
        inputs=_inputs(subject, compared, base=""),
        libraries={name: version(name) for name in (*LIBRARIES, "winnow-evalkit")},
    )
    path = f"reports/{recipe.name}-{short(asked)}"
    if store.manifest(path) is not None:
        progress.say(f"reports/{recipe.name}: re-used {path}")
        return open_artifact(store.where(path), kind="report")
    with store.draft(path) as draft:
        if store.manifest(path) is None:  # another process may have published it while this one waited
            store.publish(path, draft, _make(recipe, subject, compared, batch_tokens, draft, base=store.where(path)))
    return open_artifact(store.where(path), kind="report")


def _make(
    recipe: EvalRecipe, subject: Subject, compared: Opened | None, batch_tokens: int, draft: Path, *, base: str
) -> Report:
    chosen = heldout.choose(subject.heldout, recipe.limit)
    if compared is not None:
        compare.require_same_documents(compared, chosen)
    start = time.monotonic()
    found = bits_per_byte.rows(subject, chosen, batch_tokens=batch_tokens)
    seconds = time.monotonic() - start
    differences = [] if compared is None else bits_per_byte.differences(found, compare.bits_of(compared, found))
    files = _write_rows(found, draft)
    report = Report(
        name=recipe.name,
        inputs=_inputs(subject, compared, base=base),
        config=_config(recipe),
        scores=tuple(bits_per_byte.scores(found)),
        pages=files,
        summary={**_summary(subject, found), "differences": [score.model_dump() for score in differences]},
        producer=_producer(seconds, int(pc.sum(found["tokens"]).as_py())),
        created=now(),
    )
    for name, text in pages(report, subject, compared).items():
        (draft / name).write_text(text, encoding="utf-8")
        files = (*files, _entry(draft / name))
    return report.model_copy(update={"pages": files})


def _config(recipe: EvalRecipe) -> dict[str, Any]:
    """What of the recipe shapes the report; the report to compare with is an input, by its id."""
    return recipe.model_dump(mode="json", exclude={"compare_to"})


def _inputs(subject: Subject, compared: Opened | None, *, base: str) -> dict[str, Reference]:
    """What the report stands on; uris as seen from the artifact at `base`, or empty without one."""
    opened = {"checkpoint": subject.checkpoint, "mixture": subject.mixture, "heldout": subject.heldout}
    if compared is not None:
        opened["compared"] = compared
    return {
        key: Reference(
            kind=item.manifest.kind,
            name=item.manifest.name,
            id=item.manifest.id,
            uri=relative_uri(item.uri, base) if base else "",
        )
        for key, item in opened.items()
    }


def _summary(subject: Subject, found: pa.Table) -> dict[str, Any]:
    """The model, how much of every source was scored, and how many of these documents it may have been trained on."""
    record, tokenizer = subject.record, subject.mixture_record.tokenizer
    sources = dict(zip(found["id"].to_pylist(), found["source"].to_pylist(), strict=True))
    known = trained_on(subject.checkpoint, sources)
    sizes = found.group_by("source").aggregate([("id", "count"), ("bytes", "sum"), ("tokens", "sum")]).to_pylist()
    return {
        "subject": {
            "checkpoint": record.id,
            "run": record.run,
            "step": record.step,
            "steps": record.timeline.total_steps,
            "tokens": record.tokens,
            "parameters": Shape.model_validate(record.state["model"]).parameters,
            "vocabulary": tokenizer.vocab_size,
            "window": subject.window,
        },
        "sources": {
            row["source"]: {"documents": row["id_count"], "bytes": row["bytes_sum"], "tokens": row["tokens_sum"]}
            for row in sorted(sizes, key=lambda row: str(row["source"]))
        },
        "trained_on": {
            "documents": dict(sorted(Counter(sources[i] for i in known.ids).items())),
            "lost": list(known.lost),
        },
    }


def _write_rows(found: pa.Table, draft: Path) -> tuple[FileEntry, ...]:
    writer = ShardWriter(draft, compare.ROWS_FILE, bits_per_byte.ROWS)
    writer.write(found)
    return tuple(_entry(draft / shard.path) for shard in writer.close())


def _entry(file: Path) -> FileEntry:
    return FileEntry(path=file.name, bytes=file.stat().st_size, sha256=file_sha256(file))


def _producer(seconds: float, tokens: int) -> Producer:
    libraries: Mapping[str, str] = {name: version(name) for name in (*LIBRARIES, "pyarrow")}
    return Producer(
        program="evalkit score",
        version=version("winnow-evalkit"),
        libraries={"python": sys.version.split()[0], **libraries},
        measured={"seconds": round(seconds, 3), "tokens_per_second": round(tokens / max(seconds, 1e-9))},
    )
