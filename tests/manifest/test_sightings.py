from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from manifest.artifact import open_artifact, open_streams
from manifest.checkpoint import Pace, Timeline
from manifest.errors import NotAnArtifact, WrongArtifact
from manifest.exposure import exposures
from manifest.identity import content_id
from manifest.lineage import lineage, render
from manifest.mixture import Mixture
from manifest.order import OrderRecord, append, replace_from
from manifest.pack import pack, pack_record, write_pack
from manifest.sightings import Sightings, describe, sightings_of_document, sightings_of_text

if TYPE_CHECKING:
    from tests.manifest.conftest import Builder, Built

C4 = {content_id("c4", f"text {index}"): [index + 1] * 5 for index in range(9)}
CODE = {content_id("code", "text 3"): [7] * 6, content_id("code", "text 3") + ".2": [8] * 3, "code/main.py": [9] * 4}
SHARED = content_id("c4", "text 3")


@dataclass(frozen=True)
class Store:
    """Two runs: `plain` reads the mixture `first`; `bent` does, then goes on with `second` after two steps."""

    first: Built
    second: Built
    plain: list[Built]
    bent: list[Built]


def with_phase(record: OrderRecord, mixture: Built, phase: str) -> OrderRecord:
    manifest = mixture.manifest
    assert isinstance(manifest, Mixture)
    streams = {
        name: (manifest.streams[view.stream].id, manifest.streams[view.stream].blocks)
        for name, view in manifest.views.items()
    }
    draws = manifest.phase(phase).draw
    return append(record, mixture=manifest.id, phase=phase, draws=draws, streams=streams)


def timeline(record: OrderRecord) -> Timeline:
    """One slot of 8 tokens per step."""
    paces = tuple(Pace(seq_len=4, windows_per_step=2, first_step=segment.first_slot) for segment in record.segments)
    return Timeline(order=record, paces=paces)


@pytest.fixture
def filled(build: Builder) -> Store:
    c4, code = build.tokens("c4", C4), build.tokens("code", CODE)
    first = build.mixture("first", {"c4": c4}, {"language": {"c4": 4}, "more": {"c4": 4}})
    second = build.mixture("second", {"c4": c4, "code": code}, {"mixed": {"c4": 4, "code": 4}})
    plan = with_phase(with_phase(OrderRecord(seed=3, block_tokens=8), first, "language"), first, "more")
    bent_plan = with_phase(replace_from(plan, 2), second, "mixed")
    plain = [build.checkpoint("plain", step, timeline(plan), [first]) for step in (0, 3, 8)]
    bent = [
        build.checkpoint("bent", 2, timeline(plan), [first]),
        build.checkpoint("bent", 10, timeline(bent_plan), [first, second]),
    ]
    return Store(first, second, plain, bent)


def counted(built: Built, document: str) -> int:
    """How many tokens of a document a checkpoint has read, by its own timeline."""
    streams = {}
    for reference in built.manifest.inputs.values():
        opened = open_artifact(f"{built.uri}/{reference.uri}")
        assert isinstance(opened.manifest, Mixture)
        for name, stream in open_streams(opened).items():
            streams[opened.manifest.streams[name].id] = stream
    found = exposures(built.manifest.timeline, streams, document, built.manifest.step)  # type: ignore[attr-defined]
    return sum(exposure.tokens for exposure in found)


def test_every_checkpoint_of_a_store_answers_from_its_own_order(build: Builder, filled: Store) -> None:
    for document in [*C4, *CODE]:
        runs = {run.run: run for run in sightings_of_document(build.store.uri, document).runs}
        for name, built in (("plain", filled.plain), ("bent", filled.bent)):
            found = [(reads.uri, reads.tokens) for reads in runs[name].checkpoints]
            assert found == [(b.uri, counted(b, document)) for b in built]


def test_a_run_of_a_whole_epoch_has_seen_every_document_whole(build: Builder, filled: Store) -> None:
    for document, tokens in C4.items():
        (run,) = (r for r in sightings_of_document(build.store.uri, document).runs if r.run == "plain")
        assert run.checkpoints[0].windows == 0
        assert run.checkpoints[-1].tokens >= len(tokens)
        assert sum(phase.tokens for phase in run.phases) == run.checkpoints[-1].tokens
        assert all(0 <= phase.first_step <= phase.last_step < 8 for phase in run.phases)


def test_mixtures_tell_which_stream_holds_a_document(build: Builder, filled: Store) -> None:
    held = {m.mixture: m.streams for m in sightings_of_document(build.store.uri, "code/main.py").mixtures}
    assert held == {"first": {}, "second": {"code": 4}}


def test_a_text_is_found_in_every_source_and_with_all_its_copies(build: Builder, filled: Store) -> None:
    found = sightings_of_text(build.store.uri, "text 3")
    assert {answer.document for answer in found} == {SHARED, *(i for i in CODE if i != "code/main.py")}
    assert found == tuple(sightings_of_document(build.store.uri, answer.document) for answer in found)


def test_a_text_that_nobody_holds_is_said_to_be_in_no_stream(build: Builder, filled: Store) -> None:
    (answer,) = sightings_of_text(build.store.uri, "never written")
    assert not any(mixture.streams for mixture in answer.mixtures)
    assert "in no stream of mixture first" in describe(answer)
    assert "checkpoint at step 8: has not seen it" in describe(answer)


def test_a_checkpoint_a_report_and_a_mixture_answer_for_themselves(build: Builder, filled: Store) -> None:
    report = build.report("scores", filled.plain[1])

    def scope(answer: Sightings) -> tuple[list[str], list[int]]:
        return [m.mixture for m in answer.mixtures], [c.step for r in answer.runs for c in r.checkpoints]

    assert scope(sightings_of_document(filled.plain[1].uri, SHARED)) == (["first"], [3])
    assert scope(sightings_of_document(report.uri, SHARED)) == (["first"], [3])
    assert scope(sightings_of_document(filled.second.uri, SHARED)) == (["second"], [])


def test_a_mixture_that_is_gone_or_another_is_an_error_and_not_a_no(build: Builder, filled: Store) -> None:
    shutil.rmtree(filled.first.uri)
    with pytest.raises(NotAnArtifact, match="mixtures/first"):
        sightings_of_document(filled.plain[0].uri, SHARED)
    tokens = build.tokens("other", {"x": [1]})
    build.mixture("first", {"c4": tokens}, {"language": {"c4": 1}})
    with pytest.raises(WrongArtifact, match="the checkpoint was trained on"):
        sightings_of_document(filled.plain[0].uri, SHARED)


def test_a_place_without_mixtures_and_runs_is_refused(build: Builder) -> None:
    built = build.artifact("deduped/c4")
    with pytest.raises(WrongArtifact, match="give a store, a mixture, a checkpoint or a report"):
        sightings_of_document(built.uri, SHARED)
    with pytest.raises(NotAnArtifact, match=r"has no mixtures/ or runs/"):
        sightings_of_document(build.store.uri, SHARED)


@pytest.fixture
def packed(build: Builder, filled: Store) -> tuple[Built, Built, Timeline]:
    """A run that reads the pack of c4 in windows of 4 tokens, then c4 itself: its pack and its last checkpoint."""
    opened = open_artifact(filled.first.uri)
    tokens = opened.manifest.inputs["c4"]
    stream = open_streams(opened)["c4"]
    with build.store.draft("packs/c4") as draft:
        made, summary = pack(stream, 4)
        reference = tokens.model_copy(update={"uri": "../../tokens/c4"})
        published = pack_record(reference, 4, write_pack(made, draft), summary)
        manifest = build.store.publish("packs/c4", draft, published)
    blocks = -(-summary.bins * 4 // 8)
    record = append(
        OrderRecord(seed=1, block_tokens=8),
        mixture=opened.manifest.id,
        phase="language",
        draws={"c4": blocks},
        streams={"c4": (manifest.id, blocks)},
    )
    made_timeline = timeline(with_phase(record, filled.first, "more"))
    made_pack = type(filled.first)(build.store.where("packs/c4"), manifest)
    last = build.checkpoint("packed", made_timeline.total_steps, made_timeline, [filled.first, made_pack])
    return made_pack, last, made_timeline


def test_a_run_that_reads_a_pack_answers_from_it(build: Builder, packed: tuple[Built, Built, Timeline]) -> None:
    _, last, planned = packed
    read = 0
    for document, tokens in C4.items():
        (answer,) = sightings_of_document(last.uri, document).runs
        first, *_ = answer.phases
        assert first.phase == "language"
        assert len(tokens) <= first.tokens <= 2 * len(tokens)  # once, or twice in the block that wraps
        read += first.tokens
    assert read <= planned.order.segments[0].slots * 8
    assert any(run.run == "packed" for run in sightings_of_document(build.store.uri, SHARED).runs)
    assert render(lineage(last.uri)).count("packs c4") == 1


def test_a_pack_that_is_gone_is_an_error_and_not_a_no(build: Builder, packed: tuple[Built, Built, Timeline]) -> None:
    made, last, _ = packed
    shutil.rmtree(made.uri)
    with pytest.raises(NotAnArtifact, match="is gone: the pack of c4"):
        sightings_of_document(last.uri, SHARED)
