"""What all systems train: one model, from the same weights, over the same windows.

    <home>/raw, <home>/store      text of this machine; the mixture, and Winnow's runs
    <home>/case/                  case.json    where things are, and the decoder's shape
                                  windows.npy  (steps, windows, seq_len) i64: what Winnow reads, step by step
                                  model/       the decoder before its first step, as a Hugging Face directory

Made once per recipe and code: a run of a few steps publishes the untrained decoder.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from trainer.data.loader import step_source
from trainer.model.shape import Shape
from trainer.run import open_mixture, read_run

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "recipes" / "bench"
GATHER_MB = 12


@dataclass(frozen=True)
class Case:
    """Paths are absolute. tokens: asked for, in whole blocks of each view; steps: what they come to in a run. seed: of
    the decoder's initialisation.
    """

    store: str
    mixture: str
    directory: str
    tokens: int
    steps: int
    tokens_per_step: int
    seq_len: int
    seed: int
    shape: Shape

    @property
    def windows(self) -> Path:
        return Path(self.directory) / "windows.npy"

    @property
    def model(self) -> Path:
        return Path(self.directory) / "model"

    def write(self) -> Path:
        file = Path(self.directory) / "case.json"
        file.write_text(json.dumps({**asdict(self), "shape": self.shape.model_dump(mode="json")}, indent=1))
        return file


def read_case(file: Path) -> Case:
    fields = json.loads(file.read_bytes())
    return Case(**{**fields, "shape": Shape.model_validate(fields["shape"])})


def fit_command(
    case_store: str, mixture: str, *, name: str, workers: str, tokens: int, recipe: str = "train.yaml"
) -> list[str]:
    """The command that trains a run of so many tokens."""
    what = [str(RECIPES / recipe), "--mixture", mixture, "--out", case_store, "--name", name]
    return [sys.executable, "-m", "trainer.cli", "fit", *what, "--workers", workers, "--tokens", str(tokens)]


def make_case(home: Path, tokens: int) -> Case:
    """The case, made now or before."""
    home = home.absolute()
    directory, raw, store = home / "case", home / "raw", home / "store"
    file = directory / "case.json"
    if file.is_file() and (found := read_case(file)).tokens == tokens:
        return found
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    if not raw.is_dir():
        _call(["dataproc.cli", "gather", "--out", str(raw), "--limit-mb", str(GATHER_MB)])
    build = ["dataproc.cli", "build", str(RECIPES / "train_data.yaml"), "--raw", str(raw), "--out", str(store)]
    mixture = _call([*build, "--workers", "serial"]).splitlines()[-1]
    return _of_run(store, mixture, directory, tokens, _first_run(store, mixture, tokens))


def _first_run(store: Path, mixture: str, tokens: int) -> Path:
    """Trains once, unmeasured: caches are warm afterwards, and the untrained decoder is published."""
    directory = store / "runs" / "first"
    shutil.rmtree(directory, ignore_errors=True)
    subprocess.run(fit_command(str(store), mixture, name="first", workers="local:1", tokens=tokens), check=True)
    return directory


def _of_run(store: Path, mixture: str, directory: Path, tokens: int, first: Path) -> Case:
    run = read_run(first)
    pace = run.timeline.paces[0]
    opened = open_mixture(str(first), run, run.mixture_of(0))
    source = step_source(opened, run.timeline, rank=0, world=1)
    windows = np.stack([source.read(step).tokens for step in range(run.timeline.total_steps)])
    case = Case(
        store=str(store),
        mixture=mixture,
        directory=str(directory),
        tokens=tokens,
        steps=len(windows),
        tokens_per_step=windows[0].size,
        seq_len=pace.seq_len,
        seed=run.seed,
        shape=run.shape,
    )
    np.save(case.windows, windows)
    checkpoint = str(first / "checkpoints" / "00000000")
    _call(["trainer.cli", "export", checkpoint, "--format", "hf", "--out", str(case.model)])
    case.write()
    return case


def _call(command: list[str]) -> str:
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout
