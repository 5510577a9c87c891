"""What is measured: a mixture of text of this machine, and its tokens as plain arrays for the peers.

    <home>/mixture/raw           `dataproc gather`, unless raw text is given
    <home>/mixture/store         `dataproc build recipes/bench/mixture.yaml`
    <home>/mixture/tokens        <stream>.npy (uint16, documents end to end) and weights.json

Every step is done once; what is there is taken as it is.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.mixture.runs import ROOT, say
from manifest.artifact import Opened, open_artifact, open_streams, resolve
from manifest.mixture import Mixture

RECIPE = ROOT / "recipes" / "bench" / "mixture.yaml"


@dataclass(frozen=True)
class Corpus:
    """An opened mixture, its manifest, and its tokens for the peers."""

    opened: Opened
    mixture: Mixture
    tokens: Path

    @property
    def deduped(self) -> dict[str, Path]:
        """The documents of each stream, as the stage `tokenize` takes them."""
        found = {}
        for name, stream in self.mixture.streams.items():
            tokens = open_artifact(resolve(self.opened.uri, stream.uri))
            source = next(r for r in tokens.manifest.inputs.values() if r.kind == "deduped")
            found[name] = Path(resolve(tokens.uri, source.uri))
        return found

    @property
    def tokenizer(self) -> Path:
        return Path(resolve(self.opened.uri, self.mixture.tokenizer.uri))


def corpus(home: Path, megabytes: int) -> Corpus:
    """The corpus of so much text of this machine."""
    home = home / "mixture"
    raw, store = home / f"raw-{megabytes}", home / f"store-{megabytes}"
    if not raw.exists():
        say(f"gathering {megabytes} MB of text ...")
        _dataproc("gather", "--out", str(raw), "--limit-mb", str(megabytes))
    say("building the mixture (once) ...")
    uri = _dataproc("build", str(RECIPE), "--raw", str(raw), "--out", str(store)).strip().splitlines()[-1]
    opened = open_artifact(uri, kind="mixture")
    mixture = opened.manifest
    assert isinstance(mixture, Mixture)
    tokens = home / f"tokens-{mixture.id[:12]}"
    if not tokens.exists():
        _write_tokens(opened, mixture, tokens)
    return Corpus(opened, mixture, tokens)


def _write_tokens(opened: Opened, mixture: Mixture, to: Path) -> None:
    aside = to.with_name(f".{to.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name, stream in open_streams(opened).items():
        np.save(aside / f"{name}.npy", stream.read(0, stream.tokens).astype("<u2"))
    (phase,) = mixture.phases
    weights = {name: blocks / phase.blocks for name, blocks in phase.draw.items()}
    (aside / "weights.json").write_text(json.dumps(weights))
    aside.replace(to)


def _dataproc(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dataproc.cli", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout
