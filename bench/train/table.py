"""train.json → train.md."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

SAVES_PER = 100  # steps: what the cost of checkpoints is stated for
COLUMNS = (
    "system",
    "settings",
    "processes × threads",
    "tokens/s",
    "range",
    "step s",
    "MFU",
    "peak MB",
    "last loss",
    "largest difference of a loss",
)


def page(figures: dict[str, Any]) -> str:
    """The page, as Markdown."""
    return "\n".join(_lines(figures)) + "\n"


def _lines(figures: dict[str, Any]) -> Iterator[str]:
    case, peaks, systems = figures["case"], figures["peak_flops"], figures["systems"]
    versions = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    count = len(systems[0]["runs"])
    of_runs = f"medians of {count} runs" if count > 1 else "of one run each"
    yield "# Training: Winnow, a bare loop and the Hugging Face Trainer"
    yield ""
    yield f"Made by `make bench-train` on {figures['made']}: {_named(figures['machine'])}; {versions}."
    yield ""
    yield (
        f"One Llama of {case['parameters'] / 1e6:.1f}M parameters in fp32 on the CPU, {case['tokens_per_step']:,} "
        f"tokens per step in windows of {case['seq_len']}, {case['steps']} steps. All systems begin with the same "
        "weights and read the same windows; the last column is how far a loss of any step is from Winnow's. Figures "
        f"are {of_runs}. A step's time is the wall "
        "time from the end of the one before it, the first three left out; Winnow's steps after a checkpoint are "
        "stated below. Systems on as many cores took turns of eight seconds, in which the others were stopped; the "
        "ranges are the machine's more than theirs. MFU is against a "
        f"matrix product of torch on as many threads: {peaks['1'] / 1e9:.0f} GFLOP/s on one, "
        f"{peaks['2'] / 1e9:.0f} on two."
    )
    yield ""
    yield "| " + " | ".join(COLUMNS) + " |"
    yield "|" + "---|" * len(COLUMNS)
    ours = systems[0]["runs"][0]["losses"]
    for system in systems:
        yield "| " + " | ".join(_row(system, case, peaks, ours)) + " |"
    yield ""
    yield from _answers(figures)


def _named(machine: dict[str, Any]) -> str:
    facts = f"{machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB"
    return f"{facts}, {machine['system']}, Python {machine['python']}"


def rate(system: dict[str, Any], case: dict[str, Any]) -> float:
    """Tokens per second, the median over runs."""
    seconds: float = median(run["step_s"] for run in system["runs"])
    return float(case["tokens_per_step"]) / seconds


def _row(system: dict[str, Any], case: dict[str, Any], peaks: dict[str, float], ours: list[float]) -> list[str]:
    tokens, runs = case["tokens_per_step"], system["runs"]
    rates = sorted(tokens / run["step_s"] for run in runs)
    cores = system["workers"] * system["threads"]
    apart = max(abs(a - b) for run in runs for a, b in zip(run["losses"], ours, strict=True))
    return [
        system["name"],
        system["settings"],
        f"{system['workers']} × {system['threads']}",
        f"{rate(system, case):,.0f}",
        f"{rates[0]:,.0f}–{rates[-1]:,.0f}",
        f"{tokens / rate(system, case):.3f}",
        f"{rate(system, case) * case['flops_per_token'] / peaks[str(cores)]:.2f}",
        f"{median(run['peak_mb'] for run in runs):,.0f}",
        f"{runs[0]['losses'][-1]:.4f}",
        f"{apart:.1e}",
    ]


def _answers(figures: dict[str, Any]) -> Iterator[str]:
    case, systems, starts = figures["case"], figures["systems"], figures["start"]

    def fastest(kind: str, cores: int) -> dict[str, Any]:
        alike = [s for s in systems if s["kind"] == kind and s["workers"] * s["threads"] == cores]
        return max(alike, key=lambda system: rate(system, case))

    def step(kind: str, cores: int, against: str) -> float:
        """How the time of a step compares, the median of runs that took turns."""
        pairs = zip(fastest(kind, cores)["runs"], fastest(against, cores)["runs"], strict=True)
        return float(median(one["step_s"] / other["step_s"] for one, other in pairs))

    yield "| what | one core | two cores |"
    yield "|---|---|---|"
    bare = [step("winnow", n, "bare") for n in (1, 2)]
    yield f"| step time against the bare loop, each as it is fastest | {bare[0]:.3f} | {bare[1]:.3f} |"
    trainer = [step("hf", n, "winnow") for n in (1, 2)]
    yield f"| tokens/s against the Hugging Face Trainer, each as it is fastest | {trainer[0]:.3f} | {trainer[1]:.3f} |"
    stalls = [_stall(system) for system in systems if system["kind"] == "winnow"][:2]
    yield f"| a full checkpoint, and its share of the run at one per {SAVES_PER} steps | {stalls[0]} | {stalls[1]} |"
    cold, resumed = (median(one[key] for one in starts) for key in ("cold_s", "resumed_s"))
    times = f"{cold:.2f} s; {resumed:.2f} s ({resumed / cold:.2f} ×)"
    yield f"| to the first step: a run that begins; one that goes on | {times} | |"


def _stall(system: dict[str, Any]) -> str:
    """What a checkpoint costs: seconds, and the share of a run."""
    stall = median(run["stall_s"] for run in system["runs"] if run["stall_s"] is not None)
    step = median(run["median_step_s"] for run in system["runs"])
    return f"{stall:.2f} s, {stall / (SAVES_PER * step):.2%}"
