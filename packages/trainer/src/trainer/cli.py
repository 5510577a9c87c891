"""`trainer`: a mixture to checkpoints. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import re
import sys
from functools import partial
from pathlib import Path

from manifest.errors import InputError, RecipeError, run_command
from manifest.fields import flag_count
from trainer import cli_mup
from trainer.restarts import MOST


def main() -> None:
    """The console script."""
    arguments = _parser().parse_args()
    sys.exit(run_command(partial(arguments.run, arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="trainer", description="A mixture → checkpoints.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _plan_parser(commands)
    _fit_parser(commands)
    cli_mup.add_parsers(commands)
    _audit_parser(commands)
    _vocabulary_parser(commands)
    _export_parser(commands)
    _compare_parser(commands)
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
    plan.add_argument("--base", help="a model to start from: a checkpoint, or a Hugging Face directory")
    plan.add_argument("--tokens", help="scale the mixture's draws to so many tokens")
    plan.add_argument(
        "--memory-gb", type=float, help="of each GPU, in 10⁹ bytes: say whether the run fits, and exit 2 if not"
    )
    plan.add_argument("--gpus", type=int, help="how many GPUs it shall fit on (default 1)")
    plan.add_argument("--plot", type=Path, metavar="PNG", help="draw the schedules")
    plan.add_argument("--json", action="store_true", help="print JSON")
    plan.set_defaults(run=_plan)


def _fit_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    fit = commands.add_parser(
        "fit",
        help="train a recipe over a mixture",
        description="Trains, and prints the path of the final checkpoint. The same command again goes on with a run "
        "that was stopped; another recipe, mixture, base, size, seed or number of tokens is another run.",
        epilog="example: trainer fit recipes/demo/train.yaml --mixture store/mixtures/demo --out store",
    )
    fit.add_argument("recipe", type=Path, help="a train recipe (YAML)")
    fit.add_argument("--mixture", required=True, help="the mixture that is read")
    fit.add_argument("--out", required=True, help="the store: a directory that all workers see")
    fit.add_argument("--size", help="an entry of sizes.yaml (default: the one that the recipe names)")
    fit.add_argument("--tokens", help="scale the mixture's draws to so many tokens, such as 200k (default: as drawn)")
    fit.add_argument(
        "--base",
        metavar="DIR|CHECKPOINT",
        help="a model to start from, in place of the recipe's start_from: a checkpoint, or a Hugging Face directory",
    )
    fit.add_argument("--seed", type=int, help="of initialisation and order (default: the mixture's)")
    fit.add_argument("--name", help="the run's name (default: recipe, size and a hash of all that makes it that run)")
    fit.add_argument(
        "--continue-with",
        metavar="MIXTURE",
        help="another mixture for the rest of a run that was stopped; --mixture stays the one that it began with",
    )
    fit.add_argument(
        "--workers",
        default="local",
        help="local (a worker per GPU, or one with all cores), local:N (N workers that share the cores), ray, ray:N or "
        "ray://host:port; OMP_NUM_THREADS says how many threads a worker has (default %(default)s)",
    )
    fit.add_argument(
        "--max-restarts",
        default=str(MOST),
        metavar="N",
        help="when a worker is lost, all go on from the newest checkpoint; so often in a row without a new one "
        "(default %(default)s)",
    )
    fit.add_argument("--tensorboard", action="store_true", help="write metrics for TensorBoard, too: <run>/tensorboard")
    fit.add_argument(
        "--dry-run", action="store_true", help="print the plan of the run, its schedules and what would be warned of"
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


def _vocabulary_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    vocabulary = commands.add_parser(
        "vocabulary",
        help="how long the rows of new tokens are beside the old ones, before training and after",
        description="Of a run whose vocabulary grew: the norms of old and new rows, in input embeddings and output "
        "head, at step 0 and at its newest checkpoint. Writes vocabulary.json, vocabulary.md and vocabulary.png, and "
        "prints the path of the first.",
        epilog="example: trainer vocabulary store/runs/bilingual-… --out vocabulary",
    )
    vocabulary.add_argument("run_directory", type=Path, metavar="run", help="<store>/runs/<run>")
    vocabulary.add_argument(
        "--step", type=int, action="append", default=[], help="of a checkpoint, besides step 0; may be repeated"
    )
    vocabulary.add_argument("--out", type=Path, default=Path("vocabulary"), help="a directory (default %(default)s)")
    vocabulary.add_argument(
        "--json", action="store_true", help="print the numbers instead of the path; still write all"
    )
    vocabulary.set_defaults(run=_vocabulary)


def _export_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    export = commands.add_parser(
        "export",
        help="a checkpoint as a Hugging Face directory, or its LoRA alone",
        description="Writes a directory that transformers loads, with the tokenizer of the checkpoint's mixture, and "
        "prints its path. Where no class of transformers expresses the decoder, one file of code lies beside the "
        "weights, and loading needs trust_remote_code=True.",
        epilog="example: trainer export store/runs/…/checkpoints/00000292 --format hf --out export/demo",
    )
    export.add_argument("checkpoint", help="<store>/runs/<run>/checkpoints/<step>")
    export.add_argument(
        "--format",
        required=True,
        choices=["hf", "peft"],
        help="hf: a Hugging Face directory, LoRA merged; peft: LoRA alone",
    )
    export.add_argument(
        "--adapter", type=Path, metavar="DIR", help="with hf: LoRA in PEFT's format, merged into weights"
    )
    export.add_argument("--out", required=True, type=Path, help="the directory, new or empty")
    export.add_argument("--bits", type=int, help="4: weights of 4 bits; says what they cost in perplexity")
    export.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "float16"],
        help="of the weights, or of those that stay whole with --bits (default %(default)s: the same logits)",
    )
    export.add_argument(
        "--heldout-tokens",
        default="65536",
        help="with --bits: held-out tokens that the perplexity is measured on, 0 for none (default %(default)s)",
    )
    export.add_argument("--without-tokenizer", action="store_true", help="export though the mixture is not there")
    export.set_defaults(run=_export)


def _compare_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    compare = commands.add_parser(
        "compare",
        help="what phases of runs train, and what it takes",
        description="Prints a table in Markdown: trained parameters, memory, speed, time and loss of every phase, each "
        "against the first that trains everything.",
        epilog="example: trainer compare store/runs/med42-full-… store/runs/med42-lora-…",
    )
    compare.add_argument("runs", type=Path, nargs="+", metavar="run", help="<store>/runs/<run>")
    compare.add_argument("--json", action="store_true", help="print JSON")
    compare.set_defaults(run=_compare)


def _compare(arguments: argparse.Namespace) -> None:
    from trainer.compare import costs, table

    found = costs(arguments.runs)
    as_json = "[" + ",\n ".join(cost.model_dump_json() for cost in found) + "]"
    print(as_json if arguments.json else "\n".join(table(found)))


def _plan(arguments: argparse.Namespace) -> None:
    from trainer.plan import lines, make_plan, steps_of
    from trainer.plan_memory import shortfall
    from trainer.sizes import resolve

    tokens = _count(arguments.tokens)
    if tokens is not None and arguments.mixture is None:
        raise RecipeError("--tokens scales the draws of a mixture; give --mixture too")
    gpus, bytes_each = _room(arguments.gpus, arguments.memory_gb)
    resolved = resolve(arguments.recipe, arguments.size, base=arguments.base)
    plan = make_plan(resolved, mixture=arguments.mixture, tokens=tokens, gpus=gpus, bytes_each=bytes_each)
    if arguments.plot is not None:
        from manifest.store import write_atomic
        from trainer.pictures import schedules_png

        write_atomic(arguments.plot, schedules_png(resolved.recipe, steps_of(plan)))
    print(plan.model_dump_json(indent=2) if arguments.json else "\n".join(lines(plan)))
    missing = None if plan.room is None else shortfall(plan.room, resolved.recipe.engine.zero)
    if missing is not None:
        raise RecipeError(f"{plan.recipe} {plan.size} does not fit: {missing}")


def _room(gpus: int | None, memory_gb: float | None) -> tuple[int, int | None]:
    """--gpus and --memory-gb, the latter in bytes. Raises RecipeError."""
    if memory_gb is None:
        if gpus is not None:
            raise RecipeError(f"--gpus {gpus}: give --memory-gb too, the memory of each of them")
        return 1, None
    if not 0 < memory_gb < float("inf") or (gpus is not None and gpus < 1):
        raise RecipeError(f"--memory-gb {memory_gb:g} --gpus {gpus}: expected more than 0 of both")
    return gpus or 1, int(memory_gb * 10**9)


def _fit(arguments: argparse.Namespace) -> None:
    from trainer.dry_run import dry_run
    from trainer.fit import FitOptions, fit
    from trainer.run import local_store
    from trainer.sizes import resolve
    from trainer.workers import parse_workers

    options = FitOptions(
        recipe=resolve(arguments.recipe, arguments.size, base=arguments.base, store=local_store(arguments.out)),
        mixture=arguments.mixture,
        out=arguments.out,
        workers=parse_workers(arguments.workers),
        tokens=_count(arguments.tokens),
        seed=arguments.seed,
        name=_run_name(arguments.name),
        continue_with=arguments.continue_with,
        max_restarts=flag_count("--max-restarts", arguments.max_restarts, least=0),
        tensorboard=arguments.tensorboard,
    )
    print("\n".join(dry_run(options)) if arguments.dry_run else fit(options))


def _audit(arguments: argparse.Namespace) -> None:
    from trainer.audit import audit, audit_windows

    for line in (audit_windows if arguments.windows else audit)(arguments.run_directory, arguments.step):
        print(line)


def _vocabulary(arguments: argparse.Namespace) -> None:
    from trainer.adapt.norms import measure
    from trainer.adapt.norms_page import table, write
    from trainer.progress import console

    found = measure(arguments.run_directory, arguments.step)
    path = write(found, arguments.out)
    console.print(table(found))
    print(found.model_dump_json() if arguments.json else path)


def _export(arguments: argparse.Namespace) -> None:
    from trainer.huggingface.export import ExportOptions, export, require_options
    from trainer.huggingface.export_adapter import export_adapter

    heldout_tokens = flag_count("--heldout-tokens", arguments.heldout_tokens, least=0)
    require_options(arguments.bits, arguments.dtype)
    if arguments.format == "peft":
        if arguments.bits is not None or arguments.adapter is not None:
            raise InputError("--bits and --adapter go with --format hf; leave them out")
        print(export_adapter(arguments.checkpoint, arguments.out, dtype=arguments.dtype).uri)
        return
    options = ExportOptions(
        checkpoint=arguments.checkpoint,
        out=arguments.out,
        bits=arguments.bits,
        dtype=arguments.dtype,
        tokenizer=not arguments.without_tokenizer,
        heldout_tokens=heldout_tokens,
        adapter=arguments.adapter,
    )
    print(export(options).uri)


def _count(text: str | None) -> int | None:
    """--tokens as a number. Raises RecipeError."""
    return None if text is None else flag_count("--tokens", text, least=1)


def _run_name(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise RecipeError(f"--name {name!r}: use letters, digits, '_', '-' and '.', and begin with a letter or digit")
    return name


if __name__ == "__main__":
    main()
