"""`evalkit`: checkpoints → reports. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from evalkit import cli_positions
from manifest.errors import run_command
from manifest.fields import flag_count

BATCH_TOKENS = "2k"  # logits that a processor's cache can hold: faster than larger batches on CPUs


def main() -> None:
    """The console script."""
    # Before torch is loaded: threads that spin while they wait took three times the processor time on a shared machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = _parser().parse_args()
    sys.exit(run_command(partial(arguments.command, arguments)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="evalkit", description="Checkpoints → reports that lead back to documents.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    score = commands.add_parser(
        "score",
        help="score a checkpoint and publish a report",
        description="Scores a checkpoint on the documents that its mixture held out and prints the path of the report "
        "(report.html in it is the page to read). The same command again re-uses the report.",
        epilog="example: evalkit score recipes/demo/eval.yaml --run store/runs/demo-tiny-5f0c --out store",
    )
    score.add_argument("recipe", help="an eval recipe (YAML)")
    subject = score.add_mutually_exclusive_group(required=True)
    subject.add_argument("--checkpoint", metavar="PATH", help="the checkpoint to score")
    subject.add_argument("--run", metavar="PATH", help="a run's directory; its newest checkpoint is scored")
    score.add_argument("--out", required=True, metavar="STORE", help="the store: a directory or s3://bucket/prefix")
    score.add_argument(
        "--heldout",
        metavar="MIXTURE",
        help="score what this mixture held out (default: the one that the checkpoint was trained on)",
    )
    score.add_argument(
        "--compare-to",
        metavar="REPORT",
        help="a report over the same documents, to compare with (over the recipe's)",
    )
    score.add_argument(
        "--batch-tokens",
        default=BATCH_TOKENS,
        metavar="N",
        help="tokens in the model at once (default %(default)s)",
    )
    score.set_defaults(command=_score)
    cli_positions.add_parser(commands)
    return parser


def _score(arguments: argparse.Namespace) -> None:
    from dataproc import progress
    from evalkit.checkpoint import newest_checkpoint, open_subject
    from evalkit.compare import open_report
    from evalkit.recipe import load_recipe
    from evalkit.report import score
    from evalkit.summary import table, warnings
    from manifest.store import open_store

    recipe = load_recipe(Path(arguments.recipe))
    batch_tokens = flag_count("--batch-tokens", arguments.batch_tokens)
    compare_to = arguments.compare_to or recipe.compare_to
    compared = open_report(compare_to) if compare_to else None
    subject = open_subject(arguments.checkpoint or newest_checkpoint(arguments.run), arguments.heldout)
    progress.say(f"scoring {subject.record.name} (step {subject.record.step} of {subject.record.timeline.total_steps})")
    report = score(recipe, subject, open_store(arguments.out), compared=compared, batch_tokens=batch_tokens)
    progress.console.print(table(report))
    for line in warnings(report):
        progress.say(line)
    print(report.uri)


if __name__ == "__main__":
    main()
