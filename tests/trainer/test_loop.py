"""Runs in this process: resuming, other stages, what is refused, what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.trainer.conftest import SCHEDULE, TWO_LENGTHS, entered, never, stop_after

from manifest.artifact import Opened, open_artifact, verify
from manifest.checkpoint import Checkpoint
from manifest.errors import CorruptArtifact, InputError, WrongArtifact
from manifest.store import LocalStore
from trainer.checkpoint import load_model
from trainer.engine import shared_out
from trainer.loop import DivergedError, train
from trainer.loss import window_losses
from trainer.model.decoder import build
from trainer.recipe import EngineRecipe
from trainer.run import METRICS, Run, newest, read_run
from trainer.saves import is_due

pytestmark = pytest.mark.usefixtures("process_group")

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]

DRAWS = {"short": {"a": 5, "b": 2}, "long": {"a": 3, "b": 2}}


@pytest.fixture
def prepare(
    tmp_path: Path, make_mixture: MakeMixture, make_recipe: MakeRecipe
) -> Callable[..., tuple[LocalStore, Run]]:
    """A run of 7 steps (4 + 3, the last of each phase a smaller one) in a store of the given name."""
    mixture = make_mixture(DRAWS)

    def make(store_name: str = "out", **changes: Any) -> tuple[LocalStore, Run]:
        recipe = make_recipe(**({"phases": TWO_LENGTHS, "save": {"every_tokens": 256, "keep_full": 2}} | changes))
        store = LocalStore(tmp_path / store_name)
        return entered(store, recipe, mixture)

    return make


Prepare = Callable[..., tuple[LocalStore, Run]]


def final(store: LocalStore, run: Run) -> Checkpoint:
    found = store.manifest(run.checkpoint_path(run.timeline.total_steps))
    assert isinstance(found, Checkpoint)
    return found


def to_the_bit(record: Checkpoint) -> tuple[Any, ...]:
    """The digests of all weights and moments, and the state."""
    return record.weights, record.moments, record.state


def rows(store: LocalStore, run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (store.root / run.path / METRICS).read_text().splitlines()]


def losses(store: LocalStore, run: Run) -> list[float]:
    return [row["loss"] for row in rows(store, run)]


@pytest.mark.usefixtures("alone_as_among_many")
@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("stopped_after", [3, 4])
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one_to_the_bit(
    prepare: Prepare, stage: int, stopped_after: int
) -> None:
    engine = {"zero": stage, "micro_batch_tokens": 64}
    through, stopped = prepare("through", engine=engine), prepare("stopped", engine=engine)
    train(*through, never)
    train(*stopped, stop_after(stopped_after))
    assert len(losses(*stopped)) == stopped_after
    train(*stopped, never)
    assert losses(*stopped) == losses(*through)
    assert to_the_bit(final(*stopped)) == to_the_bit(final(*through))


@pytest.mark.parametrize("stage", [1, 3])
def test_one_worker_has_nobody_to_share_with_at_any_stage(prepare: Prepare, stage: int) -> None:
    store, run = prepare(engine={"zero": stage})
    train(store, run, never)
    producer = final(store, run).producer
    assert producer is not None
    assert producer.measured["zero"] == 0


def test_what_is_shared_out_is_what_was_asked_for_unless_one_worker_would_keep_copies() -> None:
    asked = EngineRecipe(zero=2)
    assert shared_out(asked, 2) == asked
    assert shared_out(asked, 1).zero == 0
    for other in (EngineRecipe(zero=2, offload="optimizer"), EngineRecipe(zero=1, precision="bf16")):
        assert shared_out(other, 1) == other


def test_a_scheduled_weight_decay_is_in_the_metrics_and_goes_on_after_a_stop(prepare: Prepare) -> None:
    thirds = [{"share": 0, "value": 0.0}, {"share": 0.4, "value": 0.5}, {"share": 0.8, "value": 0.1}]
    decay = {"shape": "piecewise", "between": "hold", "knots": thirds, "span": "run"}
    phases = {
        "short": TWO_LENGTHS["short"] | {"weight_decay": decay},
        "long": TWO_LENGTHS["long"] | {"weight_decay": {"continue": "short"}},
    }
    through, stopped = prepare("through", phases=phases), prepare("stopped", phases=phases)
    train(*through, never)
    assert [row["weight_decay"] for row in rows(*through)] == [0.0] * 3 + [0.5] * 3 + [0.1]
    train(*stopped, stop_after(4))
    train(*stopped, never)
    assert to_the_bit(final(*stopped)) == to_the_bit(final(*through))


@pytest.mark.usefixtures("alone_as_among_many")
@pytest.mark.parametrize(("before", "after"), [(1, 0), (0, 1)])
def test_a_run_goes_on_at_another_stage_to_rounding(prepare: Prepare, before: int, after: int) -> None:
    through = prepare("through")
    train(*through, never)
    train(*prepare("changed", engine={"zero": before}), stop_after(3))
    changed = prepare("changed", engine={"zero": after})
    train(*changed, never)
    assert losses(*changed) == pytest.approx(losses(*through), rel=1e-5)


def test_metrics_have_a_row_per_step_with_the_loss_of_each_view(prepare: Prepare) -> None:
    store, run = prepare()
    train(store, run, never)
    found = rows(store, run)
    assert [row["step"] for row in found] == list(range(7))
    assert [row["phase"] for row in found] == ["short"] * 4 + ["long"] * 3
    assert found[-1]["tokens"] == 12 * 64
    assert found[0]["views"].keys() <= {"a", "b"}
    assert {view for row in found for view in row["views"]} == {"a", "b"}
    assert found[6]["loss"] < found[0]["loss"]


@pytest.mark.usefixtures("alone_as_among_many")
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_metrics_have_the_norm_of_the_weights_each_groups_rate_and_the_share_of_the_peak(
    prepare: Prepare, stage: int
) -> None:
    store, run = prepare(engine={"zero": stage})
    train(store, run, never)
    first, *_, last = rows(store, run)
    decoder = build(run.shape, seed=run.seed)
    norm = torch.linalg.vector_norm(torch.cat([held.detach().flatten() for held in decoder.parameters()]))
    assert first["weight_norm"] == pytest.approx(float(norm), rel=1e-5)
    assert last["weight_norm"] != first["weight_norm"]
    record = final(store, run)
    multipliers = {group["name"]: group["lr_multiplier"] for group in record.state["groups"]}
    assert last["rates"] == pytest.approx({name: last["lr"] * by for name, by in multipliers.items()})
    peak = record.producer.measured["peak_flops"]  # type: ignore[union-attr]
    done = run.shape.flops_per_token(16) * first["tokens"] / first["seconds"]
    assert first["mfu"] == pytest.approx(done / peak, rel=0.01, abs=1e-4)


@pytest.mark.parametrize(
    ("save", "expected"),
    [({"every_steps": 3}, [0, 3, 4, 6, 7]), ({"count": 2}, [0, 4, 7]), ({"count": 7}, list(range(8)))],
)
def test_checkpoints_come_every_so_many_steps_or_so_many_in_all(
    prepare: Prepare, save: dict[str, int], expected: list[int]
) -> None:
    store, run = prepare(save=save)  # phases end at 4 and 7
    train(store, run, never)
    assert list(map(int, store.list(f"{run.path}/checkpoints"))) == expected


@pytest.mark.parametrize(
    ("own", "expected"),
    [({"every_steps": 2}, [3, 4, 6]), ({"every_tokens": 128}, [3, 4, 5, 6]), ({"count": 3}, [3, 4, 5, 6, 7])],
)
def test_a_phase_may_save_at_a_pace_of_its_own_from_its_first_step(
    prepare: Prepare, own: dict[str, int], expected: list[int]
) -> None:
    _, run = prepare(phases=TWO_LENGTHS | {"long": TWO_LENGTHS["long"] | {"save": own}}, save={"every_steps": 3})
    assert [done for done in range(1, 8) if is_due(run, done)] == expected


def test_the_first_loss_is_that_of_the_untrained_twin(prepare: Prepare) -> None:
    store, run = prepare()
    train(store, run, never)
    twin, record = load_model(store.where(run.checkpoint_path(0)))
    assert not record.full
    fresh = build(run.shape, seed=run.seed)
    for name, parameter in fresh.named_parameters():
        assert torch.equal(parameter, twin.get_parameter(name))


def test_a_loaded_checkpoint_predicts_what_was_learned(prepare: Prepare) -> None:
    store, run = prepare(phases={"short": TWO_LENGTHS["short"], "long": TWO_LENGTHS["long"] | {"optimizer": "keep"}})
    train(store, run, never)
    trained, record = load_model(store.where(run.checkpoint_path(7)))
    untrained, _ = load_model(store.where(run.checkpoint_path(0)))
    assert record.step == 7
    assert record.tokens == 12 * 64
    tokens = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        after, before = (window_losses(model(tokens[:, :-1]), tokens[:, 1:]) for model in (trained, untrained))
    assert after < before


def test_checkpoints_come_when_due_and_only_the_newest_keep_their_moments(prepare: Prepare) -> None:
    store, run = prepare()
    train(store, run, never)
    found = {}
    for name in store.list(f"{run.path}/checkpoints"):
        record = store.manifest(f"{run.path}/checkpoints/{name}")
        assert isinstance(record, Checkpoint)
        found[record.step] = record.full
        assert verify(store.where(run.checkpoint_path(record.step))) > 0
        files = {file.name for file in (store.root / run.checkpoint_path(record.step)).iterdir()}
        assert files == {"manifest.json", *(entry.path for entry in record.files())}
    # Every 256 tokens, the end of the first phase (step 4, 448 tokens), the end; the last two in full.
    assert found == {0: False, 2: False, 4: False, 5: True, 7: True}


def test_older_checkpoints_are_removed_if_the_recipe_says_so(prepare: Prepare) -> None:
    store, run = prepare(save={"every_tokens": 128, "keep_full": 1, "publish": "recent"})
    train(store, run, never)
    assert store.list(f"{run.path}/checkpoints") == ["00000000", "00000007"]


def test_a_checkpoint_names_its_mixture_where_it_lies(prepare: Prepare) -> None:
    store, run = prepare()
    train(store, run, never)
    opened = open_artifact(store.where(run.checkpoint_path(7)))
    (reference,) = opened.manifest.inputs.values()
    assert reference.kind == "mixture"
    assert not Path(reference.uri).is_absolute()
    assert open_artifact(opened.directory / reference.uri).manifest.id == reference.id == run.mixture.id


def test_a_flipped_bit_in_the_newest_checkpoint_is_found_before_training_goes_on(prepare: Prepare) -> None:
    store, run = prepare()
    train(store, run, stop_after(5))
    file = next((store.root / run.checkpoint_path(5)).glob("exp_avg-*"))
    flip_last_bit(file)
    with pytest.raises(CorruptArtifact, match=file.name):
        train(store, run, never)


def test_a_cut_file_is_found_on_opening(prepare: Prepare) -> None:
    store, run = prepare()
    train(store, run, stop_after(5))
    file = next((store.root / run.checkpoint_path(5)).glob("weights-*"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CorruptArtifact, match=file.name):
        newest(store, run)
    with pytest.raises(CorruptArtifact, match=file.name):
        load_model(store.where(run.checkpoint_path(5)))


def flip_last_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_a_damaged_weight_is_not_taken_for_a_trained_one(prepare: Prepare) -> None:
    store, run = prepare()
    train(store, run, stop_after(5))
    file = next((store.root / run.checkpoint_path(5)).glob("weights-*"))
    flip_last_bit(file)
    with pytest.raises(CorruptArtifact, match=file.name):
        load_model(store.where(run.checkpoint_path(5)))


def test_a_checkpoint_that_was_not_finished_does_not_exist(prepare: Prepare) -> None:
    through, killed = prepare("through"), prepare("killed")
    train(*through, never)
    train(*killed, stop_after(3))
    store, run = killed
    with store.draft(run.checkpoint_path(5)) as draft:  # what a process leaves that is killed while it saves
        (draft / "weights-00000.safetensors").write_bytes(b"half")
        (draft / "weights-00009.safetensors").write_bytes(b"of another world")
    train(store, run, never)
    assert to_the_bit(final(store, run)) == to_the_bit(final(*through))


def test_another_mixture_at_the_same_place_is_refused(prepare: Prepare, make_mixture: MakeMixture) -> None:
    store, run = prepare()
    train(store, run, stop_after(2))
    other = make_mixture(DRAWS, name="other")
    moved = run.model_copy(update={"mixture": run.mixture.model_copy(update={"uri": other.uri})})
    with pytest.raises(WrongArtifact, match=r"reads mixture mix-\w+; at .* there is other-"):
        train(store, moved, never)


def test_other_settings_of_a_group_are_refused(prepare: Prepare) -> None:
    store, run = prepare()
    train(store, run, stop_after(2))
    recipe = run.recipe.model_copy(update={"optimizer": run.recipe.optimizer.model_copy(update={"weight_decay": 0.5})})
    with pytest.raises(WrongArtifact, match="was trained with the groups"):
        train(store, run.model_copy(update={"recipe": recipe}), never)


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_its_last_checkpoint(prepare: Prepare) -> None:
    hot = {"short": TWO_LENGTHS["short"] | {"schedule": SCHEDULE | {"peak": 1e30}}, "long": TWO_LENGTHS["long"]}
    store, run = prepare(phases=hot)
    with pytest.raises(DivergedError, match=r"at step \d"):
        train(store, run, never)
    found = newest(store, run)
    assert found is None or found.manifest.step < 7  # type: ignore[attr-defined]


def test_run_json_is_enough_to_go_on(prepare: Prepare) -> None:
    store, run = prepare()
    assert read_run(store.root / run.path) == run


@pytest.mark.skipif(torch.cuda.is_available(), reason="flex attention is for GPUs, and there is one")
def test_flex_attention_without_a_gpu_is_refused_before_anything_is_learned(prepare: Prepare) -> None:
    store, run = prepare(engine={"attention": "flex"})
    with pytest.raises(InputError, match="no backward pass on a CPU"):
        train(store, run, never)
    assert not (store.root / run.path / METRICS).exists()
