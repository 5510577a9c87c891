"""dedup.json → dedup.png: quality against speed. Drawn in an environment of its own, which has matplotlib.

For each system a line from its precision (▲) to its recall (●), at its speed in MB per CPU second (log axis).
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from statistics import median

from bench.dedup.environments import environment

HERE = Path(__file__)


def draw(home: Path, figures: Path, picture: Path) -> None:
    """Draws the picture with the Python of its environment. Raises Unavailable if that cannot be made."""
    python = environment(home, "picture", HERE.with_name("picture.txt"))
    paths = [str(figures.absolute()), str(picture.absolute())]
    subprocess.run([str(python.absolute()), "-m", "bench.dedup.picture", *paths], cwd=HERE.parents[2], check=True)


def plot(figures: str, picture: str) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib import ticker

    rows = [row for row in json.loads(Path(figures).read_text())["systems"] if row["runs"] and row["by_words"]]
    figure, axes = plt.subplots(figsize=(9, 5.5), dpi=130)
    places: list[tuple[float, float, str, list[str]]] = []
    for row in rows:
        speed = row["corpus"]["text_bytes"] / 1e6 / median(run["cpu_s"] for run in row["runs"])
        score = row["runs"][0]["score"]
        colour = "#b5443a" if row["name"].startswith("Winnow") else "#40607a"
        axes.plot([speed, speed], [score["precision"], score["recall"]], color=colour, linewidth=1.5)
        axes.plot(speed, score["precision"], "^", color=colour)
        axes.plot(speed, score["recall"], "o", color=colour)
        low = min(score["precision"], score["recall"])
        beside = next((names for x, y, _, names in places if _is_near(speed, x) and abs(low - y) < 0.02), None)
        if beside is None:
            places.append((speed, low, colour, [row["name"]]))
        else:
            beside.append(row["name"])  # those that would lie on each other share a label
    for speed, low, colour, names in places:
        text = "\n".join(f"{name} " for name in names)
        axes.annotate(text, (speed, low), rotation=35, ha="right", va="top", fontsize=8, color=colour)
    axes.set_xscale("log")
    speeds = [line.get_xdata()[0] for line in axes.get_lines()]
    axes.set_xlim(min(speeds) / 2.5, max(speeds) * 1.5)
    axes.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_locator(ticker.LogLocator(subs=(2, 5)))
    axes.xaxis.set_minor_formatter(ticker.FormatStrFormatter("%g"))
    axes.set_xlabel("MB of text per CPU second (log)")
    axes.set_ylabel("precision ▲ and recall ●, against the exact answer")
    low = min(min(row["runs"][0]["score"][key] for key in ("precision", "recall")) for row in rows)
    axes.set_ylim(low - 0.12, 1.02)
    axes.grid(alpha=0.3, which="both")
    axes.set_title("Near-duplicate removal: word 5-grams, 128 permutations, J ≥ 0.8", fontsize=10)
    figure.tight_layout()
    figure.savefig(picture)


def _is_near(speed: float, other: float) -> bool:
    return abs(math.log2(speed / other)) < 0.15


if __name__ == "__main__":
    plot(*sys.argv[1:])
