"""Corpora that are hard on memory: what a build up to `deduped` takes, and whether it keeps what it should.

    python bench/dedup/hard.py --out out/bench/hard        (a few minutes, 3 GB of disk)

Every build runs in a process of its own, with a serial worker. Its peak is the most memory of its own that was seen
(RssAnon, every 10 ms). What it has mapped of files counts apart: the system takes these pages away where others need
room.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

RECIPE = """
name: hard
sources: {a: {files: "a/*", text: text}}
clean: {ftfy: true, min_chars: 0}
dedup: {unit: %s, ngram: %d, gates: {max_source_loss: 1, max_cluster: 10000000}}
holdout: {fraction: 0}
tokenizer: {train: {vocab_size: 300}}
phases: {p: {epochs: {a: 1}}}
"""
WORDS = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]


def words(rng: random.Random, count: int) -> str:
    return " ".join("".join(rng.choices(WORDS, k=rng.randint(1, 4))) for _ in range(count))


def one_of_200_mb(rng: random.Random) -> Iterator[str]:
    """One document of 200 MB, three times, among a thousand small ones: one word longer, and every 50th word another.

    Its accents are apart from their letters, so that it takes the slow way to NFC.
    """
    huge = " ".join("e\u0301 " + words(rng, 10_000) for _ in range(3_300))
    yield from (huge, huge + " more")
    yield re.sub(r"((?:\S+ ){49})\S+", r"\1another", huge)
    for _ in range(1000):
        yield words(rng, 300)


def a_million_copies(rng: random.Random) -> Iterator[str]:
    """A million copies of one document."""
    text = words(rng, 60)
    for _ in range(1_000_000):
        yield text


def a_shared_header(rng: random.Random) -> Iterator[str]:
    """Fifty thousand documents of which the first half is the same: none is a near-duplicate."""
    header = words(rng, 100)
    for _ in range(50_000):
        yield f"{header} {words(rng, 100)}"


def a_template(rng: random.Random) -> Iterator[str]:
    """Twenty thousand documents that differ in one word of 300: one cluster."""
    template = words(rng, 300)
    for _ in range(20_000):
        yield f"{template} {words(rng, 1)}"


def without_spaces(rng: random.Random) -> Iterator[str]:
    """Chinese and base64: no spaces, and code points of three bytes."""
    for number in range(20_000):
        if number % 2:
            yield base64.b64encode(rng.randbytes(3000)).decode()
        else:
            yield "".join(chr(rng.randint(0x4E00, 0x9FA5)) for _ in range(1000))


EXPECTED = {  # documents that are kept
    one_of_200_mb: 1001,
    a_million_copies: 1,
    a_shared_header: 50_000,
    a_template: 1,
    without_spaces: 20_000,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", choices=[make.__name__ for make in EXPECTED])
    parser.add_argument("--words", action="store_true", help="shingles of 5 words, not of 13 characters")
    arguments = parser.parse_args()
    print(
        f"{'corpus':<18} {'text MB':>8} {'documents':>10} {'kept':>9} {'CPU s':>7} {'peak MB':>8} "
        f"{'allowed MB':>10} {'with files':>10}"
    )
    for make, expected in EXPECTED.items():
        if arguments.only in (None, make.__name__):
            run(make.__name__, make(random.Random(0)), expected, arguments.out / make.__name__, words=arguments.words)


def run(name: str, texts: Iterator[str], expected: int, out: Path, *, words: bool) -> None:
    shutil.rmtree(out, ignore_errors=True)
    (out / "raw" / "a").mkdir(parents=True)
    size = documents = longest = 0
    with (out / "raw" / "a" / "x.jsonl").open("w", encoding="utf-8") as file:
        for text in texts:
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
            length = len(text.encode())
            size, documents, longest = size + length, documents + 1, max(longest, length)
    (out / "recipe.yaml").write_text(RECIPE % (("word", 5) if words else ("char", 13)))
    flags = {"--raw": out / "raw", "--out": out / "store", "--workers": "serial", "--until": "deduped"}
    command = ["build", str(out / "recipe.yaml"), *(str(part) for flag in flags.items() for part in flag)]
    with (out / "log").open("w") as log:
        build = subprocess.Popen([sys.executable, "-m", "dataproc.cli", *command], stdout=log, stderr=log)
        own_mb = resident_mb = 0.0
        while (ended := os.wait4(build.pid, os.WNOHANG))[0] == 0:
            own_mb = max(own_mb, memory_mb(build.pid, "RssAnon"))
            resident_mb = max(resident_mb, memory_mb(build.pid, "VmHWM"))
            time.sleep(0.01)
        _, status, usage = ended
    if status:
        sys.exit(f"{name}: {(out / 'log').read_text()}")
    (manifest,) = (out / "store" / "deduped").glob("*/manifest.json")
    kept = json.loads(manifest.read_text())["summary"]["documents"]
    mark = "" if kept == expected else f"   expected {expected:,}"
    print(
        f"{name:<18} {size / 1e6:>8.0f} {documents:>10,} {kept:>9,} {usage.ru_utime + usage.ru_stime:>7.1f} "
        f"{own_mb:>8.0f} {600 + 8 * longest / 1e6:>10.0f} {resident_mb:>10.0f}{mark}",
        flush=True,
    )
    shutil.rmtree(out)


def memory_mb(pid: int, figure: str) -> float:
    """A figure of /proc/PID/status. (`ru_maxrss` would count what the parent had when it started this process.)"""
    lines = Path("/proc", str(pid), "status").read_text().splitlines()
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{figure}:")), 0.0)


if __name__ == "__main__":
    main()
