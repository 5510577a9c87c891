"""Held-out documents of another mixture: scored when asked, and told where the model was trained on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from dataproc.documents import rows_of
from dataproc.stage import shard_files
from evalkit import cli
from evalkit.checkpoint import Subject, open_subject
from evalkit.recipe import EvalRecipe
from evalkit.report import score
from evalkit.trained_on import trained_on
from manifest.artifact import Opened, open_artifact
from manifest.errors import WrongArtifact
from manifest.report import Report
from manifest.store import open_store

RECIPE = EvalRecipe(name="tiny", tasks=("bits_per_byte",))


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory, mixture_of: Callable[..., Opened]) -> Opened:
    """Over the same text as `mixture`, with more of it held out: what that one trains on, in part."""
    return mixture_of(tmp_path_factory.mktemp("wide"), holdout=0.5)


def held_out(subject: Subject) -> dict[str, str]:
    """id → source."""
    rows = [row for file in shard_files(subject.heldout, "heldout") for row in rows_of(file).to_pylist()]
    return {row["id"]: row["source"] for row in rows}


def test_of_its_own_held_out_documents_a_model_was_trained_on_none(trained: Path) -> None:
    subject = open_subject(trained)
    assert trained_on(subject.checkpoint, held_out(subject)).ids == frozenset()


def test_what_another_mixture_holds_out_is_scored_and_what_was_trained_on_is_told(
    trained: Path, wide: Opened, tmp_path: Path
) -> None:
    own, other = held_out(open_subject(trained)), open_subject(trained, wide.uri)
    chosen = held_out(other)
    assert set(own) < set(chosen)
    report = score(RECIPE, other, open_store(tmp_path), compared=None, batch_tokens=512).manifest
    assert isinstance(report, Report)
    assert report.scores[0].count == len(chosen)
    assert report.inputs["heldout"].id == other.heldout.manifest.id
    known = Counter(source for i, source in chosen.items() if i not in own)  # nothing else is left out of the streams
    assert report.summary["trained_on"] == {"documents": dict(known), "lost": []}


def test_the_command_warns_of_what_was_trained_on(
    trained: Path,
    wide: Opened,
    tmp_path: Path,
    recipe_file: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recipe = str(recipe_file("{name: tiny, tasks: [bits_per_byte]}"))
    words = ["score", recipe, "--checkpoint", str(trained), "--heldout", wide.uri, "--out", str(tmp_path / "store")]
    monkeypatch.setattr("sys.argv", ["evalkit", *words])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert "not held out from this model: " in err
    page = (Path(out.strip()) / "report.html").read_text()
    assert "Not held out from this model" in page
    assert open_subject(trained, wide.uri).heldout.manifest.id[:12] in page


def test_a_mixture_that_is_gone_is_named(
    tmp_path: Path, mixture_of: Callable[..., Opened], checkpoint_of: Callable[..., Path]
) -> None:
    mixture = mixture_of(tmp_path)
    checkpoint = open_artifact(checkpoint_of(mixture, 5), kind="checkpoint")
    (Path(mixture.uri) / "manifest.json").rename(tmp_path / "aside.json")
    assert trained_on(checkpoint, ["a"]).lost == ("tiny",)


def test_a_mixture_that_held_nothing_out_is_refused(
    trained: Path, tmp_path: Path, mixture_of: Callable[..., Opened]
) -> None:
    nothing = mixture_of(tmp_path, holdout=0.0)
    with pytest.raises(WrongArtifact, match="has no held-out documents"):
        open_subject(trained, nothing.uri)
