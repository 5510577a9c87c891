"""`python -m bench.dedup`: Winnow beside its peers on one corpus, in one go, and how Winnow grows with the corpus.

Writes dedup.json (raw figures), dedup.md (tables) and dedup.png (quality against speed) into --results. What was
measured before with the same code, packages and corpus is taken from --home, unless --fresh is given.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.dedup import table, winnow
from bench.dedup.corpora import Corpus, corpus
from bench.dedup.environments import Unavailable
from bench.dedup.peers import PEERS
from bench.dedup.picture import draw
from bench.dedup.runs import ROOT, System, run, run_directory
from bench.dedup.scaling import scaling
from bench.machine import machine
from manifest.errors import InputError, run_command
from manifest.fields import nearest, parse_count

REPEATED_S = 60.0  # a run under this is repeated
WARM_DOCUMENTS = 1000  # each system runs over so many before it is measured: imports, compiled kernels, caches


def main() -> None:
    arguments = _arguments()
    home, results = Path(arguments.home), Path(arguments.results)
    documents = int(str(parse_count(arguments.documents)))
    raw = Path(arguments.raw) if arguments.raw else None
    systems = _chosen(arguments.systems)

    def made(count: int) -> Corpus:
        return corpus(home, ROOT / "recipes" / "synth" / "duplicates.yaml", count, raw)

    began = time.monotonic()
    figures = {
        "made": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "systems": _compare(systems, home, made, documents, arguments.repeats, fresh=arguments.fresh),
        "scaling": scaling(home, made, documents, arguments.repeats) if arguments.scaling else None,
    }
    results.mkdir(parents=True, exist_ok=True)
    (results / "dedup.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    (results / "dedup.md").write_text(table.page(figures))
    draw(home, results / "dedup.json", results / "dedup.png")
    print(table.page(figures))
    print(f"{results}/dedup.md, .json, .png; {time.monotonic() - began:.0f} s", file=sys.stderr)


def _compare(
    systems: Sequence[System], home: Path, made: Any, documents: int, repeats: int, *, fresh: bool
) -> list[dict[str, Any]]:
    """The figures of all systems. They take turns, so that what else the machine does meets all alike."""
    corpora = {system.name: made(min(documents, system.at_most)) for system in systems}
    warm = made(WARM_DOCUMENTS)
    if fresh:
        for system in systems:
            shutil.rmtree(run_directory(system, home, corpora[system.name]), ignore_errors=True)
    found: dict[str, dict[str, Any]] = {}
    for number in range(1, repeats + 1):
        for system in systems:
            rows = found.setdefault(system.name, _row(system, corpora[system.name]))
            if not rows["failure"] and all(r["wall_s"] < REPEATED_S for r in rows["runs"]):
                _once(system, home, corpora[system.name], warm, number, rows)
    return list(found.values())


def _once(system: System, home: Path, at: Corpus, warm: Corpus, number: int, row: dict[str, Any]) -> None:
    """One run more, or the reason why there is none."""
    try:
        if not (run_directory(system, home, at) / str(number)).exists() and number == 1:
            shutil.rmtree(run_directory(system, home, warm), ignore_errors=True)
            run(system, home, warm, 0)
        made = run(system, home, at, number)
    except Unavailable as error:
        row["failure"] = f"not run: {error}"
        return
    if "failure" in made:
        row["failure"] = made["failure"]
    else:
        row["runs"].append(made)


def _row(system: System, at: Corpus) -> dict[str, Any]:
    facts = at.facts
    return {
        "name": system.name,
        "version": system.version,
        "settings": system.settings,
        "by_words": system.by_words,
        "corpus": {key: facts[key] for key in ("documents", "text_bytes", "sha256")},
        "failure": "",
        "runs": [],
    }


def _chosen(names: str) -> list[System]:
    known: list[System] = [*winnow.SYSTEMS, *PEERS]
    if not names:
        return known
    wanted = [name.strip() for name in names.split(",")]
    by_word = {name: [s for s in known if s.name.split(",")[0].lower() == name.lower()] for name in wanted}
    for name, found in by_word.items():
        if not found:
            raise InputError(f"--systems: no system {name!r}{nearest(name, [s.name.split(',')[0] for s in known])}")
    return [system for system in known if any(system in found for found in by_word.values())]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.dedup", description=__doc__)
    parser.add_argument("--documents", default="201500", help="size of the corpus, such as 20k (default %(default)s)")
    parser.add_argument("--raw", default="", help="raw text to make it of (default: gathered on this machine)")
    parser.add_argument("--systems", default="", help="names with commas between, such as winnow,rensa (default: all)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="runs of each that takes under two minutes (%(default)s)"
    )
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--no-scaling", dest="scaling", action="store_false", help="leave out how Winnow grows")
    parser.add_argument("--home", default="out/bench", help="environments, corpora and runs (default %(default)s)")
    parser.add_argument("--results", default="bench/results", help="where tables go (default %(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(run_command(main))
