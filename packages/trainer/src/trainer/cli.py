"""`trainer`: a mixture to checkpoints. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import re
import sys
from functools import partial
from pathlib import Path

from manifest.errors import RecipeError, run_command
from manifest.fields import parse_count


def main() -> None:
    """The console script."""
    arguments = _parser().parse_args()
    sys.exit(run_command(partial(arguments.run, arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trainer", description="A mixture → checkpoints.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _plan_parser(commands)
    _fit_parser(commands)
    _audit_parser(commands)
    return parser


def _plan_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    plan = commands.add_parser(
        "plan",
        help="parameters, tokens, steps, FLOPs and memory of a run; trains nothing",
        epilog="example: trainer plan recipes/btlm/train.yaml --size full",
    )
    plan.add_argument("recipe", type=Path, help="a train recipe (YAML)")
    plan.add_argument("--size", help="an entry of sizes.yaml (default: the one that the recipe names)")
    plan.add_argument("--mixture", help="the mixture that would be read; without one, what the recipe states")
    plan.add_argument("--tokens", help="scale the mixture's draws to so many tokens")
    plan.add_argument("--json", action="store_true", help="print JSON")
    plan.set_defaults(run=_plan)


def _fit_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    fit = commands.add_parser(
        "fit",
        help="train a recipe over a mixture",
        description="Trains, and prints the path of the final checkpoint. The same command again goes on with a run "
        "that was stopped; another recipe, mixture, size, seed or number of tokens is another run.",
        epilog="example: trainer fit recipes/demo/train.yaml --mixture store/mixtures/demo --out store",
    )
    fit.add_argument("recipe", type=Path, help="a train recipe (YAML)")
    fit.add_argument("--mixture", required=True, help="the mixture that is read")
    fit.add_argument("--out", required=True, help="the store: a directory that all workers see")
    fit.add_argument("--size", help="an entry of sizes.yaml (default: the one that the recipe names)")
    fit.add_argument("--tokens", help="scale the mixture's draws to so many tokens, such as 200k (default: as drawn)")
    fit.add_argument("--seed", type=int, help="of initialisation and order (default: the mixture's)")
    fit.add_argument("--name", help="the run's name (default: recipe, size and a hash of all that makes it that run)")
    fit.add_argument(
        "--workers",
        default="local",
        help="local (a worker per CPU), local:N, ray, ray:N or ray://host:port (default %(default)s)",
    )
    fit.set_defaults(run=_fit)


def _audit_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    audit = commands.add_parser(
        "audit",
        help="the documents of a step",
        description="Prints a line per document and window that a step reads: window, view, stream, epoch, block, "
        "first and last + 1 token within the stream, document. With --windows, a line per window: what of it is "
        "learned, and what fill-in-the-middle did to it.",
        epilog="example: trainer audit store/runs/demo-tiny-0123456789ab --step 17",
    )
    audit.add_argument("run_directory", type=Path, metavar="run", help="<store>/runs/<run>")
    audit.add_argument("--step", type=int, required=True, help="counted from 0, as in metrics.jsonl")
    audit.add_argument("--windows", action="store_true", help="a line per window, as it was learned")
    audit.set_defaults(run=_audit)


def _plan(arguments: argparse.Namespace) -> None:
    from trainer.plan import lines, make_plan
    from trainer.sizes import resolve

    tokens = _count(arguments.tokens)
    if tokens is not None and arguments.mixture is None:
        raise RecipeError("--tokens scales the draws of a mixture; give --mixture too")
    plan = make_plan(resolve(arguments.recipe, arguments.size), mixture=arguments.mixture, tokens=tokens)
    print(plan.model_dump_json(indent=2) if arguments.json else "\n".join(lines(plan)))


def _fit(arguments: argparse.Namespace) -> None:
    from trainer.fit import FitOptions, fit
    from trainer.launch import parse_workers
    from trainer.sizes import resolve

    options = FitOptions(
        recipe=resolve(arguments.recipe, arguments.size),
        mixture=arguments.mixture,
        out=arguments.out,
        workers=parse_workers(arguments.workers),
        tokens=_count(arguments.tokens),
        seed=arguments.seed,
        name=_run_name(arguments.name),
    )
    print(fit(options))


def _audit(arguments: argparse.Namespace) -> None:
    from trainer.audit import audit, audit_windows

    for line in (audit_windows if arguments.windows else audit)(arguments.run_directory, arguments.step):
        print(line)


def _count(text: str | None) -> int | None:
    """--tokens as a number. Raises RecipeError."""
    if text is None:
        return None
    try:
        count = parse_count(text)
    except ValueError as error:
        raise RecipeError(f"--tokens {text}: {error}") from error
    assert isinstance(count, int)
    if count <= 0:
        raise RecipeError(f"--tokens {text}: expected more than 0")
    return count


def _run_name(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise RecipeError(f"--name {name!r}: use letters, digits, '_', '-' and '.', and begin with a letter or digit")
    return name


if __name__ == "__main__":
    main()
