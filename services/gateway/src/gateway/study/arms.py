"""The arms of a study, through the service: build → run → report, each asked for as anyone would ask.

Nothing is kept here: the service knows a request that it has had, so the same study goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gateway.client import Client, Submission
from gateway.failures import explained
from gateway.jobs.journal import LOG
from gateway.ledger.states import ENDED
from gateway.messages import Build, BuildOptions, BuildRequest, Report, ReportRequest, Run, RunRequest
from gateway.study.grid import Arm, Study
from manifest.errors import InputError, WinnowError
from manifest.progress import PLAIN_EVERY_S, span

POLL_S = 1.0
PER_ENTRY_S = 0.25
"""How much longer it waits for each entry that has not ended: it asks for them one by one."""

Entry = Build | Run | Report
Started = tuple[str, str]
"""What an arm starts from, and its data recipe."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where a study is done. retry: queue again what failed or was cancelled; else it is told, and left.

    command: `winnow` with these words, over the same service, to be typed.
    """

    client: Client
    raw: str
    workers: int
    retry: bool
    say: Say
    command: Callable[..., str]


@dataclass(frozen=True)
class Outcome:
    """What became of an arm. report: None if it failed, and then `failure` says where and why. baseline: the report of
    what it started from, if the study wants that.
    """

    arm: Arm
    tokens: int
    run: Run | None = None
    report: Report | None = None
    failure: str | None = None
    baseline: Report | None = None


def carry_out(study: Study, place: Place) -> Iterator[list[Outcome]]:
    """The outcomes so far, after each seed: the whole grid of one seed comes before any of the next, so that a study
    that is cut off has a table. An arm that fails does not stop the others.

    Raises InputError: arms of unequal tokens, before any is trained. WinnowError: a build failed, or the score of a
    baseline; the service.
    """
    mixtures = build_mixtures(study, place)
    tokens, step = planned_tokens(study, mixtures, place)
    require_equal_tokens(study, tokens, step)
    baselines = score_baselines(study, mixtures, place)
    planned = list(zip(study.arms, tokens, strict=True))
    outcomes: dict[str, Outcome] = {}
    for seed in study.seeds:
        if len(study.seeds) > 1:
            place.say(f"seed {seed}:")
        of_seed = [(arm, count) for arm, count in planned if arm.seed == seed]
        for outcome in _of_seed(study, of_seed, mixtures, place):
            outcomes[outcome.arm.name] = replace(outcome, baseline=baselines.get(_started(outcome.arm)))
        yield [outcomes[arm.name] for arm in study.arms if arm.name in outcomes]


def _of_seed(
    study: Study, planned: Sequence[tuple[Arm, int]], mixtures: Mapping[str, str], place: Place
) -> Iterator[Outcome]:
    runs = _all(place, [_run(study, arm, mixtures[_key(arm)]) for arm, _ in planned], "runs")
    done = [run.state == "succeeded" for run in runs]
    asked = [
        ReportRequest(recipe=dict(study.eval), checkpoint=run.id, label=arm.name)
        for (arm, _), run, ok in zip(planned, runs, done, strict=True)
        if ok
    ]
    reports = iter(_all(place, asked, "reports"))
    for (arm, count), run, ok in zip(planned, runs, done, strict=True):
        assert isinstance(run, Run)
        outcome = Outcome(arm, count, run)
        yield _scored(outcome, next(reports)) if ok else replace(outcome, failure=told(run))


def _scored(outcome: Outcome, report: Entry) -> Outcome:
    assert isinstance(report, Report)
    if report.state == "succeeded":
        return replace(outcome, report=report)
    return replace(outcome, failure=told(report))


def build_mixtures(study: Study, place: Place) -> dict[str, str]:
    """Each data recipe once → the path of its mixture. Raises WinnowError naming the build that failed, and its log."""
    requests = {_key(arm): _build(arm, place) for arm in study.arms}
    builds = _all(place, list(requests.values()), "builds")
    for build in builds:
        if build.state != "succeeded":
            raise WinnowError(told(build))
    return {key: build.result.path for key, build in zip(requests, builds, strict=True) if build.result is not None}


def score_baselines(study: Study, mixtures: Mapping[str, str], place: Place) -> dict[Started, Report]:
    """What arms start from, scored over what their mixtures hold out; nothing if the study does not want it. Raises
    WinnowError naming the report that failed, and its log.
    """
    if not study.recipe.baseline:
        return {}
    started = list(dict.fromkeys(map(_started, study.arms)))
    asked = [
        ReportRequest(recipe=dict(study.eval), checkpoint=model, heldout=mixtures[data], label=f"baseline {model}")
        for model, data in started
    ]
    reports: dict[Started, Report] = {}
    for key, report in zip(started, _all(place, asked, "reports of the baseline"), strict=True):
        if report.state != "succeeded":
            raise WinnowError(told(report))
        assert isinstance(report, Report)
        reports[key] = report
    return reports


def planned_tokens(study: Study, mixtures: Mapping[str, str], place: Place) -> tuple[list[int], int]:
    """The tokens that each arm would train on, and those of the largest step, by the service's own plan."""
    plans = [place.client.plan(_run(study, arm, mixtures[_key(arm)])).plan for arm in study.arms]
    step = max(int(phase["tokens_per_step"]) for plan in plans for phase in plan["phases"])
    return [int(plan["tokens"]) for plan in plans], step


def require_equal_tokens(study: Study, tokens: Sequence[int], step: int) -> None:
    """Raises InputError with the figures if arms differ by a step or more: then what they learn is not compared."""
    if max(tokens) - min(tokens) < step:
        return
    lines = [f"  {count:>14,}  {arm.name}" for arm, count in zip(study.arms, tokens, strict=True)]
    raise InputError(
        f"study {study.recipe.name}: the arms do not train on equally many tokens; give `tokens`, to which each is "
        "scaled, or equal totals in the phases\n" + "\n".join(lines)
    )


def told(entry: Entry) -> str:
    """Why an entry has not succeeded, and where its log is."""
    why = "was cancelled" if entry.failure is None else explained(entry.failure.detail, entry.failure.errors)
    file = f"jobs/{entry.job}/{LOG} under the service's home, or " if entry.job else ""
    return f"{entry.id}: {why} (log: {file}`winnow logs {entry.id}`)"


def _started(arm: Arm) -> Started:
    return str(arm.train.get("start_from")), _key(arm)


def _key(arm: Arm) -> str:
    return json.dumps(arm.data, sort_keys=True)


def _build(arm: Arm, place: Place) -> BuildRequest:
    return BuildRequest(recipe=dict(arm.data), raw=place.raw, options=BuildOptions(workers=place.workers))


def _run(study: Study, arm: Arm, mixture: str) -> RunRequest:
    return RunRequest(
        recipe=dict(arm.train),
        mixture=mixture,
        size=study.recipe.size,
        sizes=None if study.sizes is None else dict(study.sizes),
        tokens=study.recipe.tokens,
        seed=arm.seed,
        label=arm.name,
    )


def _all(place: Place, requests: Sequence[Submission], what: str) -> list[Entry]:
    """The entries of requests when all have ended, in the order of the requests. Ctrl-C leaves them to the service."""
    entries: list[Entry] = [_ask(place, request) for request in requests]
    try:
        _wait(place, entries, what)
    except KeyboardInterrupt:
        left = [entry.id for entry in entries if entry.state not in ENDED]
        place.say(
            f"no longer waited for; {len(left)} {what} go on, and the same command takes them up again. "
            f"`{place.command('cancel', *left)}` ends them"
        )
        raise
    return entries


def _wait(place: Place, entries: list[Entry], what: str) -> None:
    """Keeps `entries` as the service has them until all have ended."""
    known = _ended(entries)
    place.say(f"{what}: {len(entries)}, {known} of them ended before")
    start = said_at = time.monotonic()
    while any(entry.state not in ENDED for entry in entries):
        before = _ended(entries)
        time.sleep(POLL_S + PER_ENTRY_S * (len(entries) - before))
        entries[:] = [entry if entry.state in ENDED else place.client.get(entry.id) for entry in entries]
        after, now = _ended(entries), time.monotonic()
        if after > before or now - said_at > PLAIN_EVERY_S:
            said_at = now
            left = "" if after == known else f", {span((now - start) / (after - known) * (len(entries) - after))} left"
            place.say(f"{what}: {after}/{len(entries)}{left}")


def _ended(entries: Iterable[Entry]) -> int:
    return sum(entry.state in ENDED for entry in entries)


def _ask(place: Place, request: Submission) -> Entry:
    """The entry of a request. One that failed is asked for again only if that is wanted: asking queues it anew."""
    plan: Any = place.client.plan(request)
    if plan.same_as is not None and not place.retry:
        present = place.client.get(plan.same_as)
        if present.state in ("failed", "cancelled"):
            return present
    return place.client.submit(request)[0]
