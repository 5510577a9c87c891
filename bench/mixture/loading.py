"""Winnow's loader: the steps of a mixture.

    python -m bench.mixture.loading MIXTURE direct|prefetched BATCH SEQ_LEN TOKENS

`direct` reads them one after the other, as peers without worker processes do; `prefetched` lets a thread read ahead, as
the trainer does, which costs something where both share a core.

Prints tokens, seconds (wall, and CPU of all threads) after the first steps, and the seconds until the first batch.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import nullcontext

from manifest.artifact import Opened, open_artifact
from manifest.checkpoint import Pace, Timeline
from manifest.mixture import Mixture
from manifest.order import OrderRecord, append
from trainer.data.loader import prefetched, step_source

WARM = 20  # steps before the clock starts


def timeline_of(opened: Opened, batch: int, seq_len: int) -> Timeline:
    """All phases of a mixture at one pace, as a run would read them."""
    mixture = opened.manifest
    assert isinstance(mixture, Mixture)
    order = OrderRecord(seed=0, block_tokens=mixture.block_tokens)
    made = Timeline(order=order, paces=())
    streams = {name: mixture.streams[view.stream] for name, view in mixture.views.items()}
    for phase in mixture.phases:
        read = {name: (streams[name].id, streams[name].blocks) for name in phase.draw}
        order = append(made.order, mixture=mixture.id, phase=phase.name, draws=phase.draw, streams=read)
        pace = Pace(seq_len=seq_len, windows_per_step=batch, first_step=made.total_steps)
        made = Timeline(order=order, paces=(*made.paces, pace))
    return made


def main() -> None:
    uri, mode, *numbers = sys.argv[1:]
    batch, seq_len, tokens = map(int, numbers)
    began = time.perf_counter()
    opened = open_artifact(uri, kind="mixture")
    timeline = timeline_of(opened, batch, seq_len)
    source = step_source(opened, timeline, rank=0, world=1)
    steps = min(timeline.total_steps - 1, WARM + tokens // (batch * seq_len))
    direct = nullcontext(map(source.read, range(steps)))
    read = 0
    with direct if mode == "direct" else prefetched(source, 0, steps) as batches:
        for number, got in enumerate(batches):
            if number == 0:
                first_s = time.perf_counter() - began
            if number == WARM - 1:
                clock, cpu = time.perf_counter(), time.process_time()
            elif number >= WARM:
                read += got.tokens.size
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - clock
    print(json.dumps({"tokens": read, "wall_s": wall_s, "cpu_s": cpu_s, "first_s": first_s}))


if __name__ == "__main__":
    main()
