"""Figures → mixture.png: loaders by their speed, and how far beyond each goal the figures are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.mixture.table import goals, rate

OURS, PEERS = "#2f6f9f", "#a8b0b6"
REACHED, MISSED = "#4f8f5f", "#b5443a"


def draw(figures: dict[str, Any], picture: Path) -> None:
    """Draws the picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 5), dpi=130, width_ratios=(1, 1))
    _loaders(left, figures["loading"])
    _goals(right, figures)
    figure.tight_layout()
    figure.savefig(picture)
    plt.close(figure)


def _loaders(axes: Any, rows: list[dict[str, Any]]) -> None:
    batch = max(row["batch"] for row in rows)
    shown = sorted((rate(row) / 1e6, row["name"]) for row in rows if row["batch"] == batch and row["runs"])
    speeds, names = [speed for speed, _ in shown], [name for _, name in shown]
    bars = axes.barh(names, speeds, color=[OURS if name.startswith("Winnow") else PEERS for name in names])
    axes.bar_label(bars, [f" {speed:,.0f}" for speed in speeds], fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(min(speeds) / 2, max(speeds) * 2.5)
    axes.set_xlabel("million tokens per CPU second (log)")
    axes.set_title(f"Loading windows of 2,048 tokens, batches of {batch}", fontsize=10)
    axes.grid(alpha=0.3, axis="x", which="both")


def _goals(axes: Any, figures: dict[str, Any]) -> None:
    found = goals(figures)[::-1]
    shares = [goal.share for goal in found]
    names = [f"{_short(goal.what)}\n{goal.found}  (goal {goal.goal})" for goal in found]
    axes.barh(names, shares, color=[REACHED if goal.reached else MISSED for goal in found])
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, min(shares) / 1.2), max(shares) * 1.5)
    axes.tick_params(axis="y", labelsize=7.5)
    axes.set_xlabel("times better than the goal (log); the line is the goal")
    axes.set_title("Goals: reached green, missed red", fontsize=10)
    axes.grid(alpha=0.3, axis="x", which="both")


def _short(what: str) -> str:
    return what.partition(", against")[0].partition(" and seeking")[0]
