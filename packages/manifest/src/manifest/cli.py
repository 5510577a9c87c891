"""The command `manifest`: what an artifact is, whether it is whole, where it comes from and where its text went."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from manifest.artifact import read_manifest, verify
from manifest.errors import CorruptArtifact, InputError, run_command
from manifest.kinds import SCHEMAS
from manifest.lineage import as_json, lineage, nodes, render
from manifest.schemas import schema, write
from manifest.sightings import Sightings, describe, sightings_of_document, sightings_of_text

Run = Callable[[argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code. Results go to stdout, messages to stderr."""
    arguments = _parser().parse_args(argv)
    run: Run = arguments.run
    return run_command(lambda: run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="manifest", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    show = _command(commands, "show", _show, "print the manifest of an artifact", "store/mixtures/demo-9f2c")
    show.add_argument("path", help="directory or URI of the artifact")

    check = _command(commands, "verify", _verify, "check the SHA-256 of every file", "store/mixtures/demo-9f2c")
    check.add_argument("path", help="directory or URI of the artifact; a mixture is checked with its streams")

    tree = _command(commands, "lineage", _lineage, "draw the tree down to the raw files", "store/reports/demo")
    tree.add_argument("path", help="directory or URI of the artifact")
    tree.add_argument("--json", action="store_true", help="print the tree as JSON")
    tree.add_argument("--all", action="store_true", help="show every raw file")
    tree.add_argument("--verify", action="store_true", help="hash the raw files; fail if anything is not as it was")

    schemas = _command(commands, "schema", _schema, "print the JSON Schema of a kind of manifest", "mixture")
    schemas.add_argument("kind", nargs="?", help=f"{', '.join(SCHEMAS)}, or an artifact; default: all, by name")
    schemas.add_argument("--write", action="store_true", help="write the schemas into the package instead")

    trace = _command(commands, "exposure", _exposure, "tell who has seen a document", "store --document c4/8d3f")
    trace.add_argument("path", metavar="STORE", help="a store; or a mixture, a checkpoint or a report")
    what = trace.add_mutually_exclusive_group(required=True)
    what.add_argument("--document", metavar="ID", help="the id of a document")
    what.add_argument(
        "--text",
        metavar="FILE",
        help="a file with the text of a document, as normalised; finds documents whose source names no id field",
    )
    trace.add_argument("--json", action="store_true", help="print a list of answers, one per document, as JSON")
    return parser


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: Run, text: str, example: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text, epilog=f"example: manifest {name} {example}")
    parser.set_defaults(run=run)
    return parser


def _show(arguments: argparse.Namespace) -> None:
    sys.stdout.write(read_manifest(arguments.path)[1].to_json().decode("utf-8"))


def _verify(arguments: argparse.Namespace) -> None:
    size_bytes = verify(arguments.path)
    print(f"{arguments.path}: {size_bytes:,} bytes, all as its manifest says")


def _lineage(arguments: argparse.Namespace) -> None:
    tree = lineage(arguments.path, verify=arguments.verify)
    if arguments.json:
        _print_json(as_json(tree))
    else:
        print(render(tree, every=arguments.all))
    bad = [node for node in nodes(tree) if node.state != "ok"]
    if bad:
        message = f"{len(bad)} of its inputs are missing or changed, the first is {bad[0].uri}; restore them"
        if arguments.verify:
            raise CorruptArtifact(message)
        print(f"warning: {message}", file=sys.stderr)


def _schema(arguments: argparse.Namespace) -> None:
    if arguments.write:
        print("\n".join(map(str, write())))
        return
    if arguments.kind is None:
        _print_json({kind: json.loads(schema(kind)) for kind in SCHEMAS})
        return
    known = arguments.kind in SCHEMAS
    sys.stdout.write(schema(arguments.kind if known else read_manifest(arguments.kind)[1].kind))


def _exposure(arguments: argparse.Namespace) -> None:
    answers: tuple[Sightings, ...]
    if arguments.document is not None:
        answers = (sightings_of_document(arguments.path, arguments.document),)
    else:
        answers = sightings_of_text(arguments.path, _read_text(arguments.text))
    if arguments.json:
        _print_json([dataclasses.asdict(answer) for answer in answers])
    else:
        print("\n".join(map(describe, answers)))


def _read_text(path: str) -> str:
    try:
        return Path(path).read_bytes().decode("utf-8")  # not read_text: it would change line ends
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text ({error}); give a text file") from error


def _print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    sys.exit(main())
