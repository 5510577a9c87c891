"""`trainer coords` and `trainer sweep`: does what is tuned on a narrow model hold for a wide one?"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from manifest.errors import RecipeError, WinnowError

N = TypeVar("N", int, float)


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands of this module."""
    _coords_parser(commands)


def _coords_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    coords = commands.add_parser(
        "coords",
        help="whether activations depend on the width: muP's coordinate check",
        description="Trains decoders of several widths for a few steps on one random batch, with muP and without, and "
        "prints the path of the directory with coords.json and coords.png. Exit code 0: with muP activations do not "
        "depend on the width, and without it they do. Exit code 1: one of these does not hold.",
        epilog="example: trainer coords recipes/btlm/train.yaml --out out/coords",
    )
    coords.add_argument("recipe", type=Path, help="a train recipe (YAML) with architecture.mup")
    coords.add_argument("--out", required=True, type=Path, help="a directory for the result and its picture")
    coords.add_argument("--widths", default="64,128,256,512", help="at least four (default %(default)s)")
    coords.add_argument("--steps", type=int, default=4, help="of AdamW (default %(default)s)")
    coords.add_argument("--seeds", type=int, default=2, help="initialisations to average (default %(default)s)")
    coords.add_argument("--rate", type=float, help="learning rate (default: a tenth of the recipe's first peak)")
    coords.set_defaults(run=_coords)


def _coords(arguments: argparse.Namespace) -> None:
    from trainer import coords
    from trainer.pictures import coords_png
    from trainer.recipe import load_recipe

    options = coords.CheckOptions(
        widths=_widths(arguments.widths),
        steps=_positive("--steps", arguments.steps),
        seeds=_positive("--seeds", arguments.seeds),
        rate=None if arguments.rate is None else _positive("--rate", arguments.rate),
    )
    found = coords.check(load_recipe(arguments.recipe), options)
    _publish(arguments.out, {"coords.png": coords_png(found), "coords.json": found.model_dump_json(indent=2).encode()})
    _conclude(arguments.out, coords.lines(found), coords.verdict(found))


def _publish(directory: Path, files: dict[str, bytes]) -> None:
    from manifest.store import write_atomic

    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(directory / name, content)


def _conclude(directory: Path, found: Iterable[str], wrong: str | None) -> None:
    """What was found to stderr, where it lies to stdout. Raises WinnowError if a check did not pass."""
    from trainer.progress import say

    for line in found:
        say(line)
    print(directory)
    if wrong is not None:
        raise WinnowError(f"{wrong}. The figures are in {directory}")
    say("passed")


def _widths(text: str) -> tuple[int, ...]:
    """--widths. Raises RecipeError."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise RecipeError(f"--widths {text}: expected whole numbers with commas, such as 64,128,256,512")
    return tuple(int(part) for part in parts)


def _positive(flag: str, value: N) -> N:
    """A flag's number. Raises RecipeError."""
    if not 0 < value < float("inf"):
        raise RecipeError(f"{flag} {value}: expected more than 0")
    return value
