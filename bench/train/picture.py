"""train.json → train.png: tokens per second of each system, and the losses of all, which should be one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.train.table import rate

COLOURS = {"winnow": "#1b6ca8", "bare": "#8a8a8a", "hf": "#d98c2b"}


def draw(figures: dict[str, Any], file: Path) -> None:
    """Draws the picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    case, systems = figures["case"], figures["systems"]
    canvas, (bars, curves) = plt.subplots(1, 2, figsize=(11, 3.8), width_ratios=(3, 2), layout="constrained")
    names = [f"{s['name']}\n{s['workers']} × {s['threads']}" for s in systems]
    rates = [rate(system, case) for system in systems]
    drawn = bars.barh(names, rates, color=[COLOURS[s["kind"]] for s in systems])
    bars.bar_label(drawn, [f"{value:,.0f}" for value in rates], padding=3)
    bars.invert_yaxis()
    bars.margins(x=0.12)
    bars.set_xlabel("tokens per second (processes × threads)")
    for system, style in zip(systems[:3], ("-", "--", ":"), strict=True):
        curves.plot(system["runs"][0]["losses"], style, color=COLOURS[system["kind"]], label=system["name"], lw=2)
    curves.set(xlabel="step", ylabel="loss, nats per token")
    curves.legend(frameon=False)
    for axes in (bars, curves):
        axes.spines[["top", "right"]].set_visible(False)
    canvas.savefig(file, dpi=110)
    plt.close(canvas)
