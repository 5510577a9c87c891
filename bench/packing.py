"""How full windows are when a mixture's documents are packed into them by best fit, and what that takes.

    python bench/packing.py MIXTURE [--seq-len 512,1024,2048,4096]
    python bench/packing.py --documents N [--median-tokens M] [--spread S]

prints, for each stream and length of windows: windows, the share of them that is padding, the share of documents that
are longer than a window, and, beside it, the padding of windows that hold one document each and of those that take
documents in turn until the next does not fit. The second form takes N lengths that are log-normal (median M tokens, σ =
S of the logarithm), which is what the lengths of instructions look like. CPU seconds are those of packing alone; the
memory is the most that this process held.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from manifest.artifact import open_artifact, open_streams
from manifest.bestfit import Ints, best_fit
from manifest.pack import document_starts

SEED = 0


def main() -> None:
    arguments = _parser().parse_args()
    print("documents\tseq_len\twindows\tpadding\tin turn\tone each\tlonger\tcpu_s\tMiB\tstream")
    for name, lengths in _lengths(arguments):
        for seq_len in map(int, arguments.seq_len.split(",")):
            print(_row(name, lengths, seq_len), flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mixture", nargs="?", type=Path, help="a mixture; without one, lengths are drawn")
    parser.add_argument("--seq-len", default="512,1024,2048,4096", help="tokens of a window (default %(default)s)")
    parser.add_argument("--documents", type=int, default=1_000_000, help="how many are drawn (default %(default)s)")
    parser.add_argument("--median-tokens", type=float, default=250, help="their median length (default %(default)s)")
    parser.add_argument("--spread", type=float, default=1.0, help="σ of the logarithm (default %(default)s)")
    return parser


def _lengths(arguments: argparse.Namespace) -> Iterator[tuple[str, Ints]]:
    """The tokens of each document, by stream."""
    if arguments.mixture is None:
        drawn = np.random.default_rng(SEED).lognormal(
            np.log(arguments.median_tokens), arguments.spread, arguments.documents
        )
        yield "drawn", np.maximum(drawn.astype(np.int64), 2)
        return
    for name, stream in open_streams(open_artifact(arguments.mixture, kind="mixture")).items():
        yield name, np.diff(document_starts(stream))


def _row(name: str, lengths: Ints, seq_len: int) -> str:
    began = time.process_time()
    bins = best_fit(lengths, seq_len)
    seconds = time.process_time() - began
    windows, tokens = len(bins.offsets) - 1, int(lengths.sum())
    places = windows * seq_len
    singly = int((-(-lengths // seq_len)).sum()) * seq_len
    fields = [f"{len(lengths):,}", f"{seq_len:,}", f"{windows:,}", f"{bins.padding / places:.2%}"]
    fields += [f"{1 - tokens / (_in_turn(lengths, seq_len) * seq_len):.1%}", f"{1 - tokens / singly:.1%}"]
    fields += [f"{(lengths > seq_len).mean():.2%}", f"{seconds:.1f}"]
    return "\t".join([*fields, f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f}", name])


def _in_turn(lengths: Ints, seq_len: int) -> int:
    """Windows if each takes documents, or pieces of a window, in turn until the next does not fit."""
    windows, room = 0, 0
    for length in lengths.tolist():
        whole, rest = divmod(length, seq_len)
        windows += whole
        if rest > room:
            windows, room = windows + 1, seq_len
        room -= rest
    return windows


if __name__ == "__main__":
    main()
