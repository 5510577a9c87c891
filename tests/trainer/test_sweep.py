"""Sweeps and searches: what a trial learns, how trials are spread and kept, and how their losses are judged."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifest.artifact import Opened
from manifest.errors import CorruptArtifact, InputError, RecipeError
from manifest.mixture import Mixture
from manifest.record import Reference
from manifest.store import LocalStore
from trainer import cli
from trainer.fanout import _processes, _through, fan_out
from trainer.fit import FitOptions, plan_run
from trainer.launch import Workers
from trainer.loop import train
from trainer.proxy import Pace, Proxies
from trainer.recipe import load_recipe
from trainer.restarts import WorkerError
from trainer.run import METRICS, enter
from trainer.search import RANGES, SearchOptions, draw, search
from trainer.sizes import resolve_recipe
from trainer.sweep import SweepOptions, judge, sweep
from trainer.trial import Trial, run_trial

MakeMixture = Callable[..., Opened]
MakeRecipe = Callable[..., Path]

ONE = Workers(None, 1)
PACE = Pace(tokens=1024, tokens_per_step=128, seq_len=16, layers=1, heads=2)


@pytest.fixture
def proxies(make_mixture: MakeMixture, make_recipe: MakeRecipe) -> Proxies:
    """Of a recipe of one phase, eight steps of 128 tokens."""
    opened = make_mixture({"main": {"a": 20, "b": 12}})
    manifest = opened.manifest
    assert isinstance(manifest, Mixture)
    reference = Reference(kind="mixture", name=manifest.name, id=manifest.id, uri=str(Path(opened.uri).absolute()))
    return Proxies(load_recipe(make_recipe()), manifest, reference, PACE)


@pytest.mark.usefixtures("process_group")
def test_a_trial_learns_as_a_run_does(proxies: Proxies, tmp_path: Path) -> None:
    trial = proxies.trial(32, 0.02, seed=3)
    shape = trial.shape
    size = {"layers": shape.layers, "width": shape.width, "heads": shape.heads, "filter": shape.filter}
    resolved = resolve_recipe(trial.recipe, {"shared": {"here": size}}, "here")
    store = LocalStore(tmp_path / "out")
    options = FitOptions(resolved, proxies.reference.uri, store.uri, ONE, tokens=trial.tokens, seed=trial.seed)
    run = enter(store, plan_run(options, store))
    assert run.shape == shape
    train(store, run, lambda: False)
    learned = [json.loads(line)["loss"] for line in (store.root / run.path / METRICS).read_text().splitlines()]
    result = run_trial(trial)
    assert result.losses == pytest.approx(learned, rel=1e-5)
    assert result.final == pytest.approx(sum(learned[-2:]) / 2, rel=1e-5)


def test_a_trial_that_comes_to_no_number_has_no_final_loss(proxies: Proxies) -> None:
    assert run_trial(proxies.trial(16, 1e30, seed=0)).final is None


def test_proxies_differ_in_width_and_rate_alone(proxies: Proxies) -> None:
    narrow, wide = proxies.trial(16, 0.01, seed=0), proxies.trial(64, 0.04, seed=0)
    assert (narrow.shape.filter, wide.shape.filter) == (32, 128)  # base_filter / base_width of the recipe
    schedules = [trial.recipe.phases["main"].schedule for trial in (narrow, wide)]
    assert [(schedule.peak, schedule.end) for schedule in schedules] == [(0.01, 0.001), (0.04, 0.004)]
    assert schedules[0].warmup_steps == 1  # a tenth of eight steps
    assert narrow.recipe.optimizer == wide.recipe.optimizer
    standard = proxies.trial(16, 0.01, seed=0, mup=False)
    assert standard.shape.architecture.mup is None
    assert len({narrow.key, wide.key, standard.key, proxies.trial(16, 0.01, seed=1).key}) == 4


def test_trials_that_are_there_are_not_trained_again(proxies: Proxies, tmp_path: Path) -> None:
    trials = [proxies.trial(16, rate, seed=0) for rate in (0.01, 0.02)]
    before = fan_out(trials, ONE, tmp_path)
    kept, lost = (tmp_path / "trials" / f"{trial.key}.json" for trial in trials)
    marked = before[trials[0].key].model_copy(update={"final": 42.0})
    kept.write_text(marked.model_dump_json())
    lost.unlink()
    after = fan_out(trials, ONE, tmp_path)
    assert after[trials[0].key] == marked
    assert after[trials[1].key].losses == before[trials[1].key].losses
    kept.write_text("{")
    with pytest.raises(CorruptArtifact, match="delete it"):
        fan_out(trials, ONE, tmp_path)


@pytest.mark.slow
def test_processes_find_what_this_one_finds_and_pass_errors_on(proxies: Proxies) -> None:
    trials = [proxies.trial(16, rate, seed=0) for rate in (0.01, 0.02, 0.04)]
    with _processes(2) as processes:
        there = {result.key: result.losses for result in _through(processes, trials)}
        with pytest.raises(InputError, match="elsewhere"):
            list(_through(processes, [moved_away(trial) for trial in trials]))
    assert there == {trial.key: run_trial(trial).losses for trial in trials}


def moved_away(trial: Trial) -> Trial:
    return trial.model_copy(update={"mixture": trial.mixture.model_copy(update={"uri": "/elsewhere"})})


def test_a_worker_that_ends_before_its_trial_is_named(proxies: Proxies) -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with process, pytest.raises(WorkerError, match="goes on with the trials that are left"):
        list(_through([process], [proxies.trial(16, 0.01, seed=0)]))


@pytest.mark.slow
def test_ray_finds_what_this_process_finds(proxies: Proxies, tmp_path: Path) -> None:
    trials = [proxies.trial(16, rate, seed=0) for rate in (0.01, 0.02, 0.04)]
    here, there = fan_out(trials, ONE, tmp_path / "here"), fan_out(trials, Workers("ray", 2), tmp_path / "there")
    assert {key: result.losses for key, result in there.items()} == {key: result.losses for key, result in here.items()}


@pytest.mark.slow
def test_with_btlms_mup_the_best_rate_transfers_and_without_it_does_not(
    make_mixture: MakeMixture, tmp_path: Path
) -> None:
    opened = make_mixture({"short": {"a": 300, "b": 300}, "long": {"a": 100, "b": 100}}, tokens=40000, block_tokens=128)
    manifest = opened.manifest
    assert isinstance(manifest, Mixture)
    reference = Reference(kind="mixture", name=manifest.name, id=manifest.id, uri=str(Path(opened.uri).absolute()))
    pace = Pace(tokens=24_000, tokens_per_step=512, seq_len=64)
    recipe = load_recipe(Path(__file__).parents[2] / "recipes" / "btlm" / "train.yaml")
    options = SweepOptions(widths=(32, 64, 128), rates=7, standard=True)
    found = sweep(Proxies(recipe, manifest, reference, pace), options, ONE, tmp_path)
    assert found.passed
    with_mup, without = found.parametrisations["muP"], found.parametrisations["standard"]
    assert with_mup.drift is not None
    best = [curve.best_on_grid for curve in without.curves]
    assert best == sorted(best, key=lambda rate: -(rate or 0.0))
    assert (best[0] or 0.0) >= 4 * (best[-1] or 0.0)
    # Wider is better at every rate that is not too high; without muP that depends on the rate.
    losses = [dict(curve.losses) for curve in with_mup.curves]
    low = sorted(losses[0])[:4]
    assert all(
        (wide[rate] or 9.0) < (narrow[rate] or 0.0) for narrow, wide in itertools.pairwise(losses) for rate in low
    )


RATES = [2.0**power for power in range(-10, -3)]


def parabolas(centres: dict[int, float]) -> dict[int, dict[float, float | None]]:
    """Losses of each width that are least at 2 to the power of its centre."""
    return {
        width: {rate: 3.0 + 0.1 * (math.log2(rate) - centre) ** 2 for rate in RATES}
        for width, centre in centres.items()
    }


def test_the_drift_is_how_far_the_bottoms_of_the_curves_are_apart() -> None:
    found = judge(parabolas({32: -7.3, 64: -7.0, 128: -6.8}))
    assert [math.log2(curve.best) for curve in found.curves if curve.best] == pytest.approx([-7.3, -7.0, -6.8])
    assert found.drift == pytest.approx(0.5)
    assert found.passed
    assert not judge(parabolas({32: -5.8, 64: -7.0})).passed


def test_what_the_widest_loses_with_the_narrowests_rate() -> None:
    found = judge(parabolas({32: -5.0, 64: -7.0}))
    assert found.cost == pytest.approx(0.4)


def test_a_best_rate_at_the_edge_or_beside_a_diverged_one_is_not_taken_for_a_bottom() -> None:
    at_edge = judge(parabolas({32: -9.9, 64: -7.0}))
    assert at_edge.curves[0].best is None
    assert at_edge.drift is None
    assert not at_edge.passed
    losses = parabolas({32: -7.4, 64: -7.0})
    losses[32][2.0**-6] = None
    assert judge(losses).curves[0].best == 2.0**-7
    nothing = judge({32: dict.fromkeys(RATES), 64: parabolas({64: -7.0})[64]})
    assert (nothing.cost, nothing.passed) == (None, False)


def test_draws_lie_around_the_recipe_which_is_the_first(proxies: Proxies) -> None:
    own, *others = [draw(proxies, 0, index) for index in range(200)]
    assert own == {"rate": 0.01, "init_std": 0.05, "embedding": 10.0, "logits": 1.5}
    for name, most in RANGES.items():
        logs = [math.log(drawn[name] / own[name], most) for drawn in others]
        assert min(logs) >= -1
        assert max(logs) <= 1
        assert sum(logs) / len(logs) == pytest.approx(0.0, abs=0.15)
        assert sum(log**2 for log in logs) / len(logs) == pytest.approx(1 / 3, abs=0.08)
    assert draw(proxies, 0, 7) == others[6]
    assert draw(proxies, 1, 7) != others[6]


def test_a_search_takes_the_best_draw_to_the_target(proxies: Proxies, tmp_path: Path) -> None:
    found = search(proxies, SearchOptions(draws=4, proxy=16, target=32), ONE, tmp_path)
    losses = [drawn.loss for drawn in found.draws]
    best = found.draws[losses.index(min(loss for loss in losses if loss is not None))].constants
    assert found.best == best
    constants = {name: value for name, value in best.items() if name != "rate"}
    target = proxies.trial(32, best["rate"], seed=0, constants=constants)
    assert target.shape.architecture.mup is not None
    assert target.shape.architecture.mup.logits == best["logits"]
    assert found.found == run_trial(target).final
    assert found.own == run_trial(proxies.trial(32, 0.01, seed=0)).final
    with pytest.raises(RecipeError, match="give two widths"):
        search(proxies, SearchOptions(draws=4, proxy=32, target=32), ONE, tmp_path)


@pytest.mark.parametrize("flags", [["--rates", "3"], ["--search", "3"]])
def test_the_command_ends_with_its_verdict_and_leaves_its_figures(
    proxies: Proxies,
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
) -> None:
    out = tmp_path / "sweep"
    small = [
        "--widths",
        "16,32",
        "--tokens",
        "1024",
        "--tokens-per-step",
        "128",
        "--layers",
        "1",
        "--workers",
        "local:1",
    ]
    command = ["trainer", "sweep", str(make_recipe()), "--mixture", proxies.reference.uri, "--out", str(out)]
    monkeypatch.setattr("sys.argv", [*command, *small, *flags])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert capsys.readouterr().out == f"{out}\n"
    name = flags[0].removeprefix("--").replace("rates", "sweep")
    found: dict[str, Any] = json.loads((out / f"{name}.json").read_text())
    assert ended.value.code == (0 if found["passed"] else 1)
    assert (out / f"{name}.png").read_bytes().startswith(b"\x89PNG")
