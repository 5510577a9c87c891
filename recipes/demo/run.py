"""The demo: raw text that is on this machine → a mixture → a trained model → a report traced to its raw files.

It starts the service, sends it the requests that a user would send, and then shows what they made. Run again, it
re-uses what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dataproc.report import table
from dataproc.samples import Sample, removed_samples
from manifest.artifact import Opened, open_artifact, open_streams, read_manifest
from manifest.lineage import Node, lineage
from manifest.mixture import Mixture
from manifest.report import Report

HERE = Path(os.path.relpath(Path(__file__).parent))
BIN = Path(os.path.relpath(Path(sys.executable).parent))
LIMIT_MB = 16
EXCERPT_CHARS = 200

console = Console(highlight=False)


def main() -> None:
    out = Path(_arguments().out)
    start = time.monotonic()
    console.print("[bold]Winnow demo[/]: raw text on this machine → mixture → trained model → traced report, over HTTP")
    console.print(
        f"It takes three to five minutes and writes to {out}/. With {BIN} on the PATH, the commands can be typed.\n"
    )
    raw, store = out / "raw", out / "store"
    workers = min(2, os.cpu_count() or 1)
    with _service(out, raw, store):
        _step("1  Gather text", "dataproc", "gather", "--out", raw, "--limit-mb", LIMIT_MB)
        build: list[object] = ["build", HERE / "data.yaml", "--raw", raw, "--workers", workers]
        mixture = _step("2  Build the mixture", "winnow", "submit", *build, "--watch")
        run: list[object] = ["run", HERE / "train.yaml", "--mixture", mixture, "--workers", workers]
        trained = Path(_step("3  Train", "winnow", "submit", *run, "--watch"))
        score: list[object] = ["submit", "report", HERE / "eval.yaml", "--workers", workers, "--watch", "--checkpoint"]
        before = _step("4  Score the untrained twin", "winnow", *score, trained.parent / f"{0:08d}")
        after = _step("5  Score the trained model", "winnow", *score, trained, "--compare-to", before)
    _show(open_artifact(store / mixture), store / trained, open_artifact(store / before), open_artifact(store / after))
    console.print(f"[bold]Done[/] in {time.monotonic() - start:.0f} s; nothing is left running.\n")
    _next(out, store / mixture, store / trained, store / after)


@contextmanager
def _service(out: Path, raw: Path, store: Path) -> Iterator[None]:
    """A gateway of the demo's own, on a free port; it ends with the block, and with it the Ray that it started."""
    out.mkdir(parents=True, exist_ok=True)
    command = ["gateway", "serve", "--home", str(out / "service"), "--store", str(store), "--raw-root", str(raw)]
    console.print(Text("$ " + " ".join(command), style="cyan"), soft_wrap=True)
    with (out / "service.log").open("ab") as log:
        process = subprocess.Popen(
            [BIN.absolute() / command[0], *command[1:], "--port", "0"], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            last = (out / "service.log").read_text().splitlines()[-3:]
            sys.exit("\n".join(["the service did not start:", *last]))
        console.print(f"It listens on {url} while the demo runs: a page for people, an API for programs.\n")
        os.environ["WINNOW_SERVER"] = url
        yield
    finally:
        process.terminate()
        process.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="out/demo", help="where everything goes (default %(default)s)")
    return parser.parse_args()


def _step(title: str, program: str, *arguments: object) -> str:
    """Runs a command; its stderr is the user's, its one line on stdout is what it published."""
    console.rule(f"[bold]{title}", align="left", style="dim")
    console.print(Text("$ " + " ".join([program, *map(str, arguments)]), style="cyan"), soft_wrap=True)
    start = time.monotonic()
    done = subprocess.run([BIN.absolute() / program, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        console.print(f"[red]{program} stopped with exit code {done.returncode}[/]; its message is above")
        sys.exit(done.returncode)
    console.print(f"[dim]{time.monotonic() - start:.0f} s[/]\n")
    return str(done.stdout.splitlines()[-1])


def _show(mixture: Opened, trained: Path, before: Opened, after: Opened) -> None:
    assert isinstance(mixture.manifest, Mixture)
    console.rule("[bold]What became of the text (documents)", align="left", style="dim")
    console.print(table(mixture.manifest.summary["sources"]))
    console.print()
    console.rule("[bold]What the model learned", align="left", style="dim")
    _losses(trained.parent.parent / "metrics.jsonl")
    console.print(_scores(before, after))
    console.print()
    console.rule("[bold]Three removed documents beside their survivors", align="left", style="dim")
    for sample in removed_samples(mixture, 3):
        console.print(_beside(sample))
    console.rule("[bold]From the report down to a raw file", align="left", style="dim")
    for node in _branch(lineage(after.uri)):
        console.print(f"  {node.kind:<12}{node.name} [dim]{node.id[:12]}", soft_wrap=True)
    console.print()


def _branch(node: Node) -> list[Node]:
    """One way down the lineage: through the first child of each node."""
    return [node, *(_branch(node.children[0]) if node.children else [])]


def _losses(metrics: Path) -> None:
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    first, last = rows[0], rows[-1]
    console.print(
        f"loss {first['loss']:.2f} at the start, {last['loss']:.2f} at the end "
        f"({len(rows)} steps, {last['tokens']:,} tokens)\n"
    )


def _scores(before: Opened, after: Opened) -> Table:
    assert isinstance(before.manifest, Report)
    assert isinstance(after.manifest, Report)
    made = Table(box=None, pad_edge=False, header_style="bold")
    made.add_column("bits per byte, held-out text")
    for title in ("documents", "untrained", "trained", "95 % interval"):
        made.add_column(title, justify="right")
    untrained = {score.source: score.value for score in before.manifest.scores}
    for score in after.manifest.scores:
        interval = f"{score.low:.3f} – {score.high:.3f}"
        made.add_row(score.source, str(score.count), f"{untrained[score.source]:.3f}", f"{score.value:.3f}", interval)
    return made


def _beside(sample: Sample) -> Table:
    made = Table(box=None, pad_edge=False, show_header=False)
    made.add_column(style="bold")
    made.add_column()
    removed, kept = _where_they_differ(sample.text, sample.survivor_text)
    made.add_row("removed", Text(sample.id))
    made.add_row("", Text(removed, style="dim"))
    made.add_row("kept", Text(f"{sample.survivor} (exact Jaccard {sample.jaccard:.3f}; decided by {sample.rule})"))
    made.add_row("", Text(kept, style="dim"))
    made.add_row()
    return made


def _where_they_differ(a: str, b: str) -> tuple[str, str]:
    """The two texts around the first place where they differ, in one line each."""
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(0, same - EXCERPT_CHARS // 3)
    mark = "… " if start else ""
    return tuple(mark + " ".join(t[start : start + EXCERPT_CHARS].split()) for t in (a, b))  # type: ignore[return-value]


def _next(out: Path, mixture: Path, trained: Path, report: Path) -> None:
    console.print("[bold]Where to look next[/]")
    store = out / "store"
    example = _a_document(mixture)
    _, made = read_manifest(mixture)
    cards = (store / "cards").iterdir()
    card = next(card for card in cards if read_manifest(card)[1].inputs["mixture"].id == made.id)
    for what, command in (
        ("the report, as a page", f"{report}/report.html"),
        ("the data card of the mixture", f"{card}/index.html"),
        ("the whole tree of its lineage", f"{BIN}/manifest lineage {report}"),
        ("which documents step 10 read", f"{BIN}/trainer audit {trained.parent.parent} --step 10"),
        ("which steps read a document", f"{BIN}/manifest exposure {store} --document {example}"),
        ("all of it in a browser", "make serve"),
        ("the recipes", f"{HERE}/*.yaml"),
    ):
        console.print(f"  {what + ':':32}{command}", soft_wrap=True)


def _a_document(mixture: Path) -> str:
    stream = next(iter(open_streams(open_artifact(mixture)).values()))
    return next(iter(stream.spans(0, 1))).document


if __name__ == "__main__":
    if shutil.which("dataproc", path=str(BIN)) is None:
        sys.exit("run this with the project's own Python: make demo")
    main()
