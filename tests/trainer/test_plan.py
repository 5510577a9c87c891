from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from manifest.artifact import Opened
from manifest.errors import RecipeError
from trainer import cli
from trainer.loss import window_losses
from trainer.model.decoder import build
from trainer.model.shape import Architecture, Shape
from trainer.plan import Plan, lines, make_plan
from trainer.plan_memory import layer_values, memory_bytes, room, shortfall, state_bytes
from trainer.recipe import EngineRecipe, PhaseRecipe
from trainer.sizes import resolve

RECIPES = Path(__file__).parents[2] / "recipes"


def test_btlm_in_full_is_the_papers() -> None:
    plan = make_plan(resolve(RECIPES / "btlm" / "train.yaml", "full"), mixture=None, tokens=None)
    assert plan.parameters == pytest.approx(2.65e9, rel=0.01)
    assert plan.steps == 159_636
    assert plan.tokens == 159_636 * 3_932_160
    short, long = plan.phases
    assert short.tokens == pytest.approx(470.8e9, rel=1e-3)
    assert long.tokens == pytest.approx(156.9e9, rel=1e-3)
    # 6 per parameter of a product, and 6 · 32 layers · 2,560 · length of causal attention.
    assert short.flops_per_token == pytest.approx(6 * 2.65e9 + 6 * 32 * 2560 * 2048, rel=0.01)
    assert long.flops_per_token - short.flops_per_token == 6 * 32 * 2560 * (8192 - 2048)


def test_a_plan_over_a_mixture_has_its_steps_and_tokens(
    make_mixture: Callable[..., Opened], make_recipe: Callable[..., Path]
) -> None:
    mixture = make_mixture({"main": {"a": 5, "b": 2}})
    plan = make_plan(resolve(make_recipe(), None), mixture=mixture.uri, tokens=None)
    assert (plan.tokens, plan.steps) == (7 * 64, 4)
    scaled = make_plan(resolve(make_recipe(), None), mixture=mixture.uri, tokens=3 * 64)
    assert (scaled.tokens, scaled.steps) == (3 * 64, 2)


def test_without_mixture_or_reference_there_are_no_tokens(make_recipe: Callable[..., Path]) -> None:
    plan = make_plan(resolve(make_recipe(), None), mixture=None, tokens=None)
    assert (plan.tokens, plan.steps, plan.flops) == (None, None, None)
    assert plan.padded_vocab == 128


def test_an_unknown_size_is_refused(make_recipe: Callable[..., Path]) -> None:
    with pytest.raises(RecipeError, match="no size 'vast'"):
        resolve(make_recipe(), "vast")


def test_memory_falls_with_stage_and_workers() -> None:
    held = memory_bytes(1_000_000)
    assert held["zero 0"] == {"1": 16_000_000, "8": 16_000_000, "64": 16_000_000}
    assert held["zero 3"]["64"] == 4_000_000 // 64 + 12_000_000 // 64
    assert held["zero 1"]["8"] > held["zero 2"]["8"] > held["zero 3"]["8"]


def full(name: str, **options: Any) -> Plan:
    return make_plan(resolve(RECIPES / name / "train.yaml", "full"), mixture=None, tokens=None, **options)


@pytest.mark.parametrize(
    ("name", "parameters", "tokens"),
    [("btlm", 2.65e9, 627.7e9), ("crystal", 6_583_754_752, 1.392e12), ("slimpajama_dc", 1.3e9, 330e9)],
)
def test_full_sizes_are_the_papers_within_what_their_tables_leave_open(
    name: str, parameters: float, tokens: float
) -> None:
    plan = full(name)
    assert plan.parameters == pytest.approx(parameters, rel=0.01)
    assert plan.tokens == pytest.approx(tokens, rel=1e-3)


def test_crystals_table_does_not_add_up_to_its_count_and_both_are_printed() -> None:
    # By hand: four matrices of 4,096², three of 4,096 × 10,922, their biases, two norms; the table of 32,032 rows.
    layer = 4 * 4096**2 + 3 * 4096 * 10922 + 4 * 4096 + 2 * 10922 + 4096 + 4 * 4096
    by_hand = 32 * layer + 2 * 4096 + 32032 * 4096
    plan = full("crystal")
    assert plan.parameters == by_hand + 32 * 4096  # 32 rows of padding
    (line,) = (line for line in lines(plan) if "published" in line and "parameters" in line)
    assert "6,583,754,752" in line
    assert f"{plan.parameters:,}" in line


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_alone_a_worker_holds_sixteen_bytes_per_parameter_and_its_copy(stage: int) -> None:
    copy = 4 if stage in (1, 2) else 0
    assert state_bytes(1000, stage, 1) == (16 + copy) * 1000
    assert state_bytes(1000, stage, 1, precision="bf16") == 16 * 1000


def test_offloaded_moments_leave_weights_and_gradients() -> None:
    assert state_bytes(1000, 1, 4, offload="optimizer") == 8000
    assert state_bytes(1000, 3, 4, offload="optimizer") == 2000


def test_what_is_frozen_has_weights_alone() -> None:
    assert state_bytes(1000, 0, 1, trained=10) == 4 * 1000 + 12 * 10
    assert state_bytes(1000, 1, 1, trained=10) == 4 * 1000 + 16 * 10
    assert state_bytes(1000, 3, 10, trained=10) == 4 * 100 + 12


def test_a_phase_that_trains_a_part_is_planned_with_it(make_recipe: Callable[..., Path]) -> None:
    schedule = {"shape": "constant", "peak": 0.1}
    phase = {"seq_len": 16, "tokens_per_step": 64, "schedule": schedule, "optimizer": "reset"}
    parts = {
        "tables": phase | {"trainable": "embeddings"},
        "lora": phase | {"trainable": {"lora": {"rank": 2, "alpha": 4, "targets": ["query"]}}},
    }
    plan = make_plan(resolve(make_recipe(phases=parts), None), mixture=None, tokens=None)
    tables, lora = plan.phases
    assert tables.trained_parameters == plan.embedding_parameters == 128 * 16
    assert 0 < lora.trained_parameters < plan.non_embedding_parameters
    most = max(tables.trained_parameters, lora.trained_parameters)
    assert plan.memory_bytes["zero 0"]["1"] == 4 * (plan.parameters + lora.trained_parameters) + 12 * most
    assert any(f"trains {lora.trained_parameters:,} parameters" in line for line in lines(plan))


def saved_values(shape: Shape, tokens: int) -> int:
    """What torch keeps of a forward pass for its backward pass, besides the parameters: each storage once."""
    decoder = build(shape, seed=0)
    known = {parameter.untyped_storage().data_ptr() for parameter in decoder.parameters()}
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    tokens_BT = torch.randint(0, shape.vocab_size, (1, tokens + 1))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        window_losses(decoder(tokens_BT[:, :-1]), tokens_BT[:, 1:])
    sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in kept}
    return sum(size for pointer, size in sizes.items() if pointer not in known) // 4


@pytest.mark.parametrize(
    "kind",
    [
        {"position": "alibi", "feedforward": "swiglu", "norm": "layernorm", "bias": True},
        {"position": "rope", "feedforward": "swiglu", "norm": "rmsnorm", "bias": False, "rotary_share": 0.25},
        {"position": "alibi", "feedforward": "gelu", "norm": "layernorm", "bias": True},
    ],
)
def test_a_layer_keeps_as_many_numbers_as_torch_does(kind: dict[str, Any]) -> None:
    shapes = [
        Shape(
            layers=layers,
            width=64,
            heads=4,
            kv_heads=2,
            head_dim=24,
            filter=170,
            vocab_size=64,
            architecture=Architecture(tied=True, **kind),
        )
        for layers in (1, 3)
    ]
    one, three = (saved_values(shape, tokens=100) for shape in shapes)
    assert (three - one) / 200 == pytest.approx(layer_values(shapes[0]), rel=0.02)


def small_room(bytes_each: int, gpus: int = 1, **engine: Any) -> Any:
    kind = Architecture(position="rope", feedforward="swiglu", norm="layernorm", bias=False, tied=True)
    shape = Shape(layers=4, width=256, heads=4, kv_heads=4, head_dim=64, filter=682, vocab_size=1000, architecture=kind)
    schedule = {"shape": "constant", "peak": 0.1}
    phase = PhaseRecipe.model_validate({"seq_len": 64, "tokens_per_step": 64, "schedule": schedule})
    settings = EngineRecipe.model_validate({"micro_batch_tokens": 64, **engine})
    return shape, room(shape, {"main": phase}, settings, gpus=gpus, bytes_each=bytes_each)


def test_what_is_missing_is_what_is_needed_less_what_is_there() -> None:
    _, found = small_room(50_000_000)
    assert {stage.needed - 50_000_000 for stage in found.stages.values()} == {
        stage.missing for stage in found.stages.values()
    }
    _, roomy = small_room(found.stages["zero 1"].needed)
    assert roomy.stages["zero 1"].missing == 0
    assert shortfall(roomy, 1) is None


def test_as_many_gpus_as_are_named_would_do_and_half_of_them_would_not() -> None:
    _, found = small_room(40_000_000)
    stage = found.stages["zero 3"]
    assert stage.least_gpus is not None
    for gpus, fits in ((stage.least_gpus, True), (stage.least_gpus // 2, False)):
        _, there = small_room(40_000_000, gpus=gpus)
        assert (there.stages["zero 3"].missing == 0) is fits
    said = shortfall(found, 1)
    assert said is not None
    assert "are missing" in said


def test_a_size_that_does_not_fit_ends_with_2_and_says_how_much_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = str(RECIPES / "crystal" / "train.yaml")
    monkeypatch.setattr("sys.argv", ["trainer", "plan", recipe, "--memory-gb", "70", "--gpus", "8"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert "crystal full does not fit: at zero 1 each of 8 GPUs needs" in err
    assert "activation_checkpointing: true" in err
    assert "321,836 steps" in out


def test_a_picture_needs_to_know_how_many_steps_there_are(
    monkeypatch: pytest.MonkeyPatch, make_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    picture = tmp_path / "schedule.png"
    codes = {}
    for recipe in (RECIPES / "btlm" / "train.yaml", make_recipe()):
        monkeypatch.setattr("sys.argv", ["trainer", "plan", str(recipe), "--plot", str(picture)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        codes[recipe.parent.name] = ended.value.code
    assert codes == {"btlm": 0, "small": 2}
    assert picture.read_bytes().startswith(b"\x89PNG")
