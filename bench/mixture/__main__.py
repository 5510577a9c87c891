"""`python -m bench.mixture`: tokenising, loading, opening, tracing and packing, in one go (see bench/README.md).

Writes mixture.json (raw figures), mixture.md (tables) and mixture.png into --results. Corpora and environments are made
once, under --home; everything else is measured each time.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.dedup.environments import Unavailable
from bench.machine import machine
from bench.mixture import padding, table
from bench.mixture.corpora import Corpus, corpus
from bench.mixture.peers import PEERS
from bench.mixture.picture import draw
from bench.mixture.runs import Figures, measured, python, say
from manifest.errors import run_command

SEQ_LEN = 2048
BATCHES = (8, 64)
OUR_TOKENS = 400_000_000
OURS = {
    "Winnow": ("steps of a mixture with weights", "direct"),
    "Winnow, prefetched": ("the same, read ahead by a thread on the same core", "prefetched"),
}
"""How Winnow's loader is run: what the table says of it, and the mode of bench.mixture.loading."""
TOKENISED = "code"  # the stream whose documents are tokenised


def main() -> None:
    arguments = _arguments()
    home, results = Path(arguments.home), Path(arguments.results)
    began = time.monotonic()
    made = corpus(home, arguments.megabytes)
    figures = {
        "made": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "remark": arguments.remark,
        "corpus": _described(made),
        "tokenising": _tokenising(made, arguments.repeats),
        "loading": _loading(home, made, arguments.repeats),
        "giant": _giant(home, arguments.repeats),
        "padding": padding.rows(arguments.instructions),
    }
    results.mkdir(parents=True, exist_ok=True)
    (results / "mixture.json").write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n")
    (results / "mixture.md").write_text(table.page(figures))
    draw(figures, results / "mixture.png")
    print(table.page(figures))
    print(f"{results}/mixture.md, .json, .png; {time.monotonic() - began:.0f} s", file=sys.stderr)


def _described(made: Corpus) -> dict[str, Any]:
    streams = made.mixture.streams
    return {
        "tokens": {name: stream.tokens for name, stream in streams.items()},
        "documents": {name: stream.documents for name, stream in streams.items()},
        "vocab_size": made.mixture.tokenizer.vocab_size,
    }


def _tokenising(made: Corpus, repeats: int) -> list[dict[str, Any]]:
    """Winnow and the bare loop take turns, on one core and on all of them."""
    shards = sorted(made.deduped[TOKENISED].glob("documents*.parquet"))
    rows = []
    for cores in (1, machine()["cores"]):
        found: dict[str, list[Figures]] = {"bare": [], "winnow": []}
        for _ in range(repeats):
            for mode, runs in found.items():
                say(f"tokenising, {mode}, {cores} cores ...")
                command = python("bench.mixture.tokenising", mode, made.tokenizer, *shards)
                runs.append(measured(command, cores=cores))
        assert len({run["tokens"] for runs in found.values() for run in runs}) == 1, "both make the same tokens"
        rows.append({"cores": cores, **found})
    return rows


def _loading(home: Path, made: Corpus, repeats: int) -> list[dict[str, Any]]:
    """Every loader with every batch, in turns, so that what else the machine does meets all alike."""
    rows = [_loader(name, "", settings, batch) for name, (settings, _) in OURS.items() for batch in BATCHES]
    rows += [_loader(peer.name, peer.version, peer.settings, batch) for peer in PEERS for batch in BATCHES]
    for number in range(1, repeats + 1):
        say(f"loading, round {number} ...")
        for row in (row for row in rows if not row["failure"]):
            try:
                row["runs"].append(_load(home, made, row["name"], row["batch"]))
            except (Unavailable, RuntimeError) as error:
                row["failure"] = str(error)
    return rows


def _loader(name: str, version: str, settings: str, batch: int) -> dict[str, Any]:
    return {"name": name, "version": version, "settings": settings, "batch": batch, "failure": "", "runs": []}


def _load(home: Path, made: Corpus, name: str, batch: int) -> Figures:
    if name in OURS:
        _, mode = OURS[name]
        return measured(python("bench.mixture.loading", made.opened.uri, mode, batch, SEQ_LEN, OUR_TOKENS))
    peer = next(peer for peer in PEERS if peer.name == name)
    peer.prepare(home, made.tokens, SEQ_LEN)
    return peer.read(home, made.tokens, batch, SEQ_LEN)


def _giant(home: Path, repeats: int) -> list[Figures]:
    say("a mixture of 10^12 tokens ...")
    measured(python("bench.mixture.giant", "make", home))
    return [measured(python("bench.mixture.giant", "measure", home, number)) for number in range(repeats)]


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.mixture", description=__doc__)
    parser.add_argument("--megabytes", type=int, default=60, help="text that is gathered (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (default %(default)s)")
    parser.add_argument("--instructions", default="", help="a mixture whose streams are packed too")
    parser.add_argument("--remark", default="", help="a line for the page, such as what else ran")
    parser.add_argument("--home", default="out/bench", help="environments and corpora (default %(default)s)")
    parser.add_argument("--results", default="bench/results", help="where tables go (default %(default)s)")
    return parser.parse_args(given)


if __name__ == "__main__":
    sys.exit(run_command(main))
