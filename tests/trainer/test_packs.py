"""Runs of packed documents: what they read, token by token, against what exposure and audit say of them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifest.artifact import Opened, open_artifact, open_streams, verify
from manifest.checkpoint import Checkpoint
from manifest.corpus import PADDING, TokenStream
from manifest.errors import CorruptArtifact, NotAnArtifact, RecipeError
from manifest.exposure import exposures
from manifest.lineage import lineage, nodes
from manifest.mixture import Mixture
from manifest.pack import summary_of
from manifest.packed import with_packs
from manifest.sightings import sightings_of_document
from manifest.store import LocalStore
from trainer.audit import audit, audit_windows
from trainer.data.loader import StepSource, step_source
from trainer.fit import FitOptions, ask, fit, plan_run
from trainer.launch import Workers
from trainer.loop import train
from trainer.packs import open_packs
from trainer.plan import make_plan
from trainer.run import METRICS, RUN, Run, enter, read_run
from trainer.sizes import resolve

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]

SCHEDULE = {"shape": "constant", "warmup_steps": 1, "peak": 0.01}
SHORT = {"seq_len": 32, "tokens_per_step": 192, "schedule": SCHEDULE, "packing": "best_fit"}
LONG = SHORT | {"seq_len": 64}
PLAIN = {"seq_len": 16, "tokens_per_step": 128, "schedule": SCHEDULE}
DRAWS = {"short": {"a": 18, "b": 5}, "plain": {"a": 3}, "long": {"a": 20, "b": 7}}
PHASES = {"short": SHORT, "plain": PLAIN, "long": LONG}


@dataclass(frozen=True)
class Subject:
    """A planned run over a mixture of which stream a has 10 blocks of 64 tokens, and b as many."""

    store: LocalStore
    options: FitOptions
    run: Run
    mixture: Opened

    @property
    def packs(self) -> tuple[Opened, ...]:
        return open_packs(self.store.where(self.run.path), self.run.packs)

    @property
    def plain(self) -> dict[str, TokenStream]:
        assert isinstance(self.mixture.manifest, Mixture)
        streams = self.mixture.manifest.streams
        return {streams[name].id: stream for name, stream in open_streams(self.mixture).items()}

    def source(self, rank: int = 0, world: int = 1) -> StepSource:
        phases = self.run.recipe.phases
        return step_source(self.mixture, self.run.timeline, rank=rank, world=world, phases=phases, packs=self.packs)


Prepare = Callable[..., Subject]


@pytest.fixture
def prepare(tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe) -> Prepare:
    def make(
        phases: dict[str, Any] = PHASES, draws: dict[str, dict[str, int]] = DRAWS, out: str = "store", **changes: Any
    ) -> Subject:
        mixture = make_mixture(draws, tokens=620)
        store = LocalStore(tmp_path / out)
        recipe = resolve(make_recipe(phases=phases, **changes), None)
        options = FitOptions(recipe, mixture.uri, store.uri, Workers(None, 1))
        return Subject(store, options, enter(store, plan_run(options, store)), mixture)

    return make


def documents_of(stream: TokenStream) -> dict[str, list[int]]:
    return {
        span.document: stream.read(span.start, span.stop - span.start).tolist()
        for span in stream.spans(0, stream.tokens)
    }


def places_of(row: np.ndarray, owners: np.ndarray) -> list[tuple[int, ...]]:
    """The runs of tokens of one owner in a row, without padding."""
    cuts = [0, *(np.flatnonzero(np.diff(owners)) + 1).tolist(), len(row)]
    pieces = [(row[a:b], owners[a]) for a, b in pairwise(cuts)]
    return [tuple(piece.tolist()) for piece, owner in pieces if owner != PADDING]


@pytest.mark.parametrize("world", [1, 2])
def test_exposure_of_every_document_is_what_the_ranks_read_of_it(prepare: Prepare, world: int) -> None:
    """The oracle knows of packs only that whole documents, or pieces of a window, lie in the rows."""
    subject = prepare({"short": SHORT, "long": LONG}, {"short": {"a": 0, "b": 0, "c": 18}, "long": {"c": 21}})
    texts = documents_of(open_streams(subject.mixture)["c"])
    read: dict[str, Counter[int]] = {document: Counter() for document in texts}
    for source in (subject.source(rank, world) for rank in range(world)):
        for step in range(subject.run.timeline.total_steps):
            batch = source.read(step)
            seq_len = batch.tokens.shape[1]
            pieces = {
                tuple(text[first : first + seq_len]): document
                for document, text in texts.items()
                for first in range(0, len(text), seq_len)
            }
            assert len(pieces) == sum(-(-len(text) // seq_len) for text in texts.values()), "no two are alike"
            assert batch.documents is not None
            for row, owners, view in zip(batch.tokens, batch.documents, batch.views, strict=True):
                for piece in places_of(row, owners) if view >= 0 else []:
                    read[pieces[piece]][step] += len(piece)
    streams = with_packs(subject.plain, subject.packs, 0)
    for document, expected in read.items():
        found: Counter[int] = Counter()
        for exposure in exposures(subject.run.timeline, streams, document):
            found[exposure.step] += exposure.tokens
        assert found == expected


def test_a_phase_reads_as_many_epochs_of_its_pack_as_it_was_to_read_of_its_stream(prepare: Prepare) -> None:
    subject = prepare({"short": SHORT, "long": LONG}, {"short": {"a": 20}, "long": {"a": 10, "b": 5}})
    assert isinstance(subject.mixture.manifest, Mixture)
    sizes = {p.manifest.id: -(-summary_of(p).bins * p.manifest.config["capacity"] // 64) for p in subject.packs}
    assert len(sizes) == 3
    short, long = subject.run.timeline.order.segments
    (a,) = short.draws
    assert (a.blocks, a.stream_blocks) == (2 * sizes[a.stream], sizes[a.stream])
    whole, half = long.draws
    assert (whole.blocks, whole.ranges[0][0]) == (sizes[whole.stream], 0), "another pack is a tape of its own"
    assert half.blocks == round(sizes[half.stream] / 2)
    assert a.stream != whole.stream


def test_whole_epochs_show_every_token_as_often_and_learn_all_but_the_first_of_a_piece(prepare: Prepare) -> None:
    subject = prepare({"long": LONG}, {"long": {"a": 20, "b": 10}})
    source, seen, learned = subject.source(), Counter[str](), 0
    pieces = 0
    for step in range(subject.run.timeline.total_steps):
        batch = source.read(step)
        assert batch.documents is not None
        for row, owners, weights, view in zip(batch.tokens, batch.documents, batch.weights, batch.views, strict=True):
            found = places_of(row, owners)
            pieces += len(found)
            seen[source.views[view]] += sum(map(len, found))
            learned += int(weights.sum())
            assert not weights[owners[1:] == PADDING].any()
            assert not row[owners == PADDING].any(), "padding is end-of-text, which is 0 here"
    assert seen == {"a": 2 * 620, "b": 620}
    assert learned == 3 * 620 - pieces


def test_an_audit_names_the_tokens_of_each_window_in_their_order(prepare: Prepare) -> None:
    subject = prepare()
    directory, source = subject.store.root / subject.run.path, subject.source()
    streams = open_streams(subject.mixture)
    for step in range(subject.run.timeline.total_steps):
        batch = source.read(step)
        owners = batch.documents if batch.documents is not None else np.zeros_like(batch.tokens)
        read: list[int] = []
        for line in list(audit(directory, step))[1:]:
            _, view, stream, _, _, first, stop, document = line.split("\t")
            assert document.startswith(f"{stream}/")
            assert view == stream
            read += streams[stream].read(int(first), int(stop) - int(first)).tolist()
        assert read == batch.tokens[owners != PADDING].tolist()
        targets = [int(line.split("\t")[6]) for line in list(audit_windows(directory, step))[1:]]
        assert targets == batch.weights.sum(axis=1).tolist()


@pytest.mark.usefixtures("process_group")
def test_a_run_is_trained_published_and_traced(prepare: Prepare) -> None:
    subject = prepare()
    train(subject.store, subject.run, lambda: False)
    rows = [json.loads(x) for x in (subject.store.root / subject.run.path / METRICS).read_text().splitlines()]
    source = subject.source()
    for row in rows:
        batch = source.read(row["step"])
        assert row["targets"] == batch.weights.sum()
        assert row["padding"] == (0 if batch.documents is None else (batch.documents == PADDING).sum())
    assert {row["phase"] for row in rows if row["padding"]} == {"short", "long"}
    uri = subject.store.where(subject.run.checkpoint_path(len(rows)))
    last = open_artifact(uri).manifest
    assert isinstance(last, Checkpoint)
    read = {draw.stream for segment in last.timeline.order.segments for draw in segment.draws}
    packs = {p.id for p in last.inputs.values() if p.kind == "packs"}
    assert packs < read
    assert {node.state for node in nodes(lineage(uri)) if node.kind in ("packs", "tokens")} == {"ok"}
    document = next(iter(documents_of(subject.plain[max(read - packs)])))
    streams = with_packs(subject.plain, subject.packs, 0)
    (answer,) = sightings_of_document(uri, document).runs
    assert answer.checkpoints[-1].tokens == sum(e.tokens for e in exposures(last.timeline, streams, document))
    assert read_run(subject.store.root / subject.run.path) == subject.run
    assert fit(subject.options) == uri, "the same command finds it finished"


def test_packs_are_made_once_and_by_one_name_for_all_runs(prepare: Prepare) -> None:
    first, second = prepare(), prepare(optimizer={"weight_decay": 0.0})
    assert first.run.name != second.run.name
    assert first.packs == second.packs
    assert len(list(first.store.root.glob("packs/*"))) == 4
    assert {p.manifest.name for p in first.packs} == {"a", "b"}


def test_a_pack_that_was_changed_stops_the_run(prepare: Prepare) -> None:
    subject = prepare()
    file = subject.packs[0].directory / "length.npy"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(CorruptArtifact, match=r"length\.npy has SHA-256 .* run the same build again"):
        plan_run(subject.options, subject.store)
    file.write_bytes(whole[:-4])
    with pytest.raises(CorruptArtifact, match=r"length\.npy has \d+ bytes"):
        subject.source()


def test_a_pack_that_is_gone_is_made_anew_and_is_the_same(prepare: Prepare) -> None:
    subject = prepare()
    shutil.rmtree(subject.packs[0].uri)
    with pytest.raises(NotAnArtifact, match="run the same `trainer fit` again"):
        subject.source()
    again = plan_run(subject.options, subject.store)
    assert again == subject.run
    for opened in open_packs(subject.store.where(again.path), again.packs):
        verify(opened.uri)


def test_a_run_of_before_there_were_packs_is_read(prepare: Prepare) -> None:
    subject = prepare({"main": PLAIN}, {"main": {"a": 4}})
    directory = subject.store.root / subject.run.path
    fields = json.loads((directory / RUN).read_text())
    assert fields.pop("packs") == []
    (directory / RUN).write_text(json.dumps(fields))
    assert read_run(directory) == subject.run


def test_asking_makes_nothing_and_knows_the_runs_name(prepare: Prepare) -> None:
    subject = prepare()
    shutil.rmtree(subject.store.root / "packs")
    asked = ask(subject.options)
    assert (asked.identity, asked.path) == (subject.run.identity, subject.run.path)
    assert not (subject.store.root / "packs").exists()


def test_a_plan_says_what_fit_will_pack_and_then_what_it_has_packed(prepare: Prepare) -> None:
    subject = prepare(out="elsewhere")
    before = make_plan(subject.options.recipe, mixture=subject.mixture.uri, tokens=None)
    assert before.tokens == 53 * 64, "as without padding"
    assert len(before.packing) == 4
    assert all("`trainer fit` first packs" in line for line in before.packing)
    shutil.copytree(subject.store.root / "packs", Path(subject.mixture.uri).parents[1] / "packs")
    after = make_plan(subject.options.recipe, mixture=subject.mixture.uri, tokens=None)
    assert after.steps == subject.run.timeline.total_steps
    assert after.tokens == subject.run.timeline.order.slots * 64 > before.tokens
    for line, opened in zip(after.packing, subject.packs, strict=True):
        assert f"{summary_of(opened).bins} windows" in line


def test_windows_that_do_not_divide_blocks_are_refused_before_anything_is_packed(
    tmp_path: Path, prepare: Prepare
) -> None:
    with pytest.raises(RecipeError, match="found 24, which does not divide the blocks of 64 tokens"):
        prepare({"main": LONG | {"seq_len": 24}}, {"main": {"a": 4}})
    assert not (tmp_path / "store" / "packs").exists()
