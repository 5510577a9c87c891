"""The peers of the loader, each with its script in peers/ and its pinned packages in a requirements file beside it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.dedup.environments import Unavailable, environment
from bench.mixture.runs import Figures, measured, say

HERE = Path(__file__).parent / "peers"


@dataclass(frozen=True)
class Peer:
    """A way to read tokens with a package: `variant` of its script."""

    name: str
    package: str
    variant: str
    settings: str
    tokens: int  # read in about half a second or more

    @property
    def version(self) -> str:
        pinned = re.search(rf"^{re.escape(self.package)}==(\S+)", self._requirements.read_text(), re.MULTILINE)
        assert pinned is not None, f"{self._requirements} does not pin {self.package}"
        return pinned[1]

    @property
    def _requirements(self) -> Path:
        return HERE / f"{self.package}.txt"

    def prepare(self, home: Path, tokens: Path, seq_len: int) -> None:
        """Writes the tokens in the package's own way, once. Raises Unavailable."""
        out = self._data(home, tokens)
        if out.exists():
            return
        say(f"writing the tokens for {self.package} ...")
        aside = out.with_name(f".{out.name}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        command = [*self._command(home), "prepare", str(tokens.absolute()), str(seq_len), str(aside.absolute())]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"its data could not be written: {(done.stdout.strip().splitlines() or ['?'])[-1]}")
        aside.replace(out)

    def read(self, home: Path, tokens: Path, batch: int, seq_len: int) -> Figures:
        """Reads tokens on one core. Raises Unavailable, RuntimeError."""
        where = [str(self._data(home, tokens).absolute()), self.variant, str(batch), str(seq_len), str(self.tokens)]
        return measured([*self._command(home), "read", *where], ours=False)

    def _command(self, home: Path) -> list[str]:
        python = environment(home, self.package, self._requirements)
        return [str(python.absolute()), str((HERE / f"{self.package}_loader.py").absolute())]

    def _data(self, home: Path, tokens: Path) -> Path:
        return home / "mixture" / f"{self.package}-{tokens.name}"


PEERS = (
    Peer(
        "datasets, written",
        "datasets",
        "written",
        "mixed and shuffled once, written down, `iter(batch_size)`",
        150_000_000,
    ),
    Peer(
        "datasets, mapped",
        "datasets",
        "mapped",
        "`interleave_datasets`, `shuffle`: random access; DataLoader",
        40_000_000,
    ),
    Peer(
        "datasets, streamed",
        "datasets",
        "streamed",
        "iterables, shuffle buffer 1000, `interleave_datasets`; DataLoader",
        4_000_000,
    ),
    Peer(
        "litdata, combined",
        "litdata",
        "combined",
        "StreamingDataset a stream, shuffled; CombinedStreamingDataset",
        60_000_000,
    ),
    Peer("litdata, single", "litdata", "single", "one StreamingDataset, shuffled; mixes nothing", 120_000_000),
)
