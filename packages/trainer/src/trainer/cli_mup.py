"""`trainer coords` and `trainer sweep`: does what is tuned on a narrow model hold for a wide one?"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from manifest.errors import RecipeError, WinnowError
from manifest.fields import flag_count

if TYPE_CHECKING:  # torch, which takes a second to import
    from trainer.proxy import Proxies

N = TypeVar("N", int, float)


def add_parsers(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The commands of this module."""
    _coords_parser(commands)
    _sweep_parser(commands)


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


def _sweep_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sweep = commands.add_parser(
        "sweep",
        help="whether the best learning rate of a narrow model is that of a wide one",
        description="Trains small proxies of a recipe over a mixture at several widths and learning rates, and prints "
        "the path of the directory with sweep.json and sweep.png. With --search N: N random draws of the rate and of "
        "muP's constants at the narrowest width, the best of which goes to the widest; search.json and search.png. "
        "The same command again goes on with the trials that are left. Exit code 0: it passed; 1: it did not.",
        epilog="example: trainer sweep recipes/btlm/train.yaml --mixture store/mixtures/… --out out/sweep --standard",
    )
    sweep.add_argument("recipe", type=Path, help="a train recipe (YAML) with architecture.mup")
    sweep.add_argument("--mixture", required=True, help="the mixture that is read")
    sweep.add_argument("--out", required=True, type=Path, help="a directory for the trials, the result and its picture")
    sweep.add_argument("--widths", default="32,64,128,256", help="(default %(default)s)")
    sweep.add_argument(
        "--rates", type=int, default=7, help="powers of two around the recipe's peak (default %(default)s)"
    )
    sweep.add_argument("--tokens", default="100k", help="of each trial (default %(default)s)")
    sweep.add_argument("--tokens-per-step", default="2048", help="(default %(default)s)")
    sweep.add_argument("--seq-len", type=int, default=256, help="of windows, at most (default %(default)s)")
    sweep.add_argument("--layers", type=int, default=2, help="(default %(default)s)")
    sweep.add_argument("--seeds", type=int, default=1, help="to average over (default %(default)s)")
    sweep.add_argument("--standard", action="store_true", help="also without muP, for contrast")
    sweep.add_argument(
        "--search", type=int, metavar="N", help="random search of the narrowest width instead of a sweep"
    )
    sweep.add_argument("--workers", default="local", help="as of `trainer fit` (default %(default)s: one per CPU)")
    sweep.set_defaults(run=_sweep)


def _sweep(arguments: argparse.Namespace) -> None:
    from trainer import search, sweep
    from trainer.pictures import search_png, sweep_png
    from trainer.workers import parse_workers

    proxies, widths = _proxies(arguments), _widths(arguments.widths)
    workers, out = parse_workers(arguments.workers), arguments.out
    seeds = _positive("--seeds", arguments.seeds)
    if arguments.search is not None:
        asked = search.SearchOptions(arguments.search, proxy=min(widths), target=max(widths), seeds=seeds)
        drawn = search.search(proxies, asked, workers, out)
        _publish(out, {"search.png": search_png(drawn), "search.json": drawn.model_dump_json(indent=2).encode()})
        _conclude(out, search.lines(drawn), search.verdict(drawn))
        return
    options = sweep.SweepOptions(widths=widths, rates=arguments.rates, seeds=seeds, standard=arguments.standard)
    found = sweep.sweep(proxies, options, workers, out)
    _publish(out, {"sweep.png": sweep_png(found), "sweep.json": found.model_dump_json(indent=2).encode()})
    _conclude(out, sweep.lines(found), sweep.verdict(found))


def _proxies(arguments: argparse.Namespace) -> Proxies:
    """Raises RecipeError, ArtifactError."""
    from manifest.artifact import open_artifact
    from manifest.mixture import Mixture
    from manifest.record import Reference
    from trainer.proxy import Pace, Proxies, mup_architecture
    from trainer.recipe import load_recipe
    from trainer.timeline import require_same_phases
    from trainer.trial import require_trials

    recipe = load_recipe(arguments.recipe)
    mup_architecture(recipe)
    require_trials(recipe)
    opened = open_artifact(arguments.mixture, kind="mixture")
    manifest = opened.manifest
    assert isinstance(manifest, Mixture)
    require_same_phases(manifest, recipe, str(arguments.recipe))
    pace = Pace(
        tokens=flag_count("--tokens", arguments.tokens),
        tokens_per_step=flag_count("--tokens-per-step", arguments.tokens_per_step),
        seq_len=_positive("--seq-len", arguments.seq_len),
        layers=_positive("--layers", arguments.layers),
    )
    uri = opened.uri if "://" in opened.uri else str(Path(opened.uri).absolute())
    return Proxies(recipe, manifest, Reference(kind="mixture", name=manifest.name, id=manifest.id, uri=uri), pace)


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
