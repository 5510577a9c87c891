"""A Ray cluster as the dispatcher sees it: the Jobs REST API of its dashboard, every call with a time limit.

https://docs.ray.io/en/latest/cluster/running-applications/job-submission/rest.html
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx2

from manifest.errors import WinnowError

TIMEOUT_S = 10.0
SUBMIT_TIMEOUT_S = 60.0  # the first submission waits for the agent of a fresh cluster
ENDED = frozenset({"SUCCEEDED", "FAILED", "STOPPED"})


class Unreachable(WinnowError):  # noqa: N818 - a state of things rather than a fault
    """Ray does not answer, or not as it should. What it carries out may go on all the same."""


class Refused(Unreachable):
    """Ray answers, and does not do what it is asked."""


@dataclass(frozen=True)
class Status:
    """What Ray says of a job. `text` is its explanation."""

    ended: bool
    text: str


class Cluster(Protocol):
    """Something that carries out jobs. alone: on this machine, with no other."""

    python: str
    alone: bool

    def ready(self) -> bool:
        """Whether jobs can be given to it now; brings it up if that is for this side to do."""

    def submit(self, job: str, directory: Path) -> None:
        """Starts a job; one that is known already is left alone. Raises Unreachable."""

    def status(self, job: str) -> Status | None:
        """None if it knows no such job. Raises Unreachable."""

    def stop(self, job: str) -> None:
        """Stops a job by force. Raises Unreachable."""

    def close(self) -> None:
        """Lets go of it, and ends it if it was started here."""


class RayCluster:
    """A running cluster. `python` is the interpreter on its machines that has Winnow.

    gcs: where jobs are to find their cluster, as host:port. Ray tells them, but where several Rays are on a machine it
    may name another one.
    """

    alone = False

    def __init__(self, address: str, token: str, python: str, gcs: str | None = None) -> None:
        self.python = python
        self._gcs = gcs
        self._http = httpx2.Client(
            base_url=address, headers={"Authorization": f"Bearer {token}"} if token else {}, timeout=TIMEOUT_S
        )

    def ready(self) -> bool:
        try:
            self.session()
        except Unreachable:
            return False
        return True

    def session(self) -> str:
        """The name that this life of the cluster has; another one after a restart. Raises Unreachable."""
        return str(_fields(self._send("GET", "/api/version"), "session_name")["session_name"])

    def submit(self, job: str, directory: Path) -> None:
        command = shlex.join(
            [self.python, "-m", "gateway.jobs.work", str(directory), *([self._gcs] if self._gcs else [])]
        )
        body: dict[str, object] = {"entrypoint": command, "submission_id": job, "metadata": {"program": "winnow"}}
        answer = self._send("POST", "/api/jobs/", body, SUBMIT_TIMEOUT_S)
        if answer.status_code != 200 and self.status(job) is None:
            raise Refused(f"Ray took no job ({answer.status_code}): {_last_line(answer.text)}")

    def status(self, job: str) -> Status | None:
        answer = self._send("GET", f"/api/jobs/{job}")
        if answer.status_code == 404:
            return None
        said = _fields(answer, "status")
        return Status(said["status"] in ENDED, _last_line(said.get("message") or said["status"]))

    def stop(self, job: str) -> None:
        answer = self._send("POST", f"/api/jobs/{job}/stop")
        if answer.status_code != 404:
            _checked(answer)

    def close(self) -> None:
        self._http.close()

    def _send(
        self, method: str, path: str, body: dict[str, object] | None = None, timeout_s: float = TIMEOUT_S
    ) -> httpx2.Response:
        try:
            return self._http.request(method, path, json=body, timeout=timeout_s)
        except httpx2.HTTPError as error:
            raise Unreachable(f"Ray at {self._http.base_url} does not answer: {error}") from error


def _checked(answer: httpx2.Response) -> httpx2.Response:
    if answer.status_code in (401, 403):
        raise Refused("Ray refuses the token; give the cluster's RAY_AUTH_TOKEN as WINNOW_RAY_TOKEN")
    if answer.status_code != 200:
        raise Refused(f"Ray answered {answer.status_code}: {_last_line(answer.text)}")
    return answer


def _fields(answer: httpx2.Response, *needed: str) -> dict[str, Any]:
    """The JSON object of an answer. Raises Refused if it is none of Ray's, such as a proxy's page."""
    try:
        found = _checked(answer).json()
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(found.get(name), str) for name in needed):
        raise Refused(f"{answer.url} answers, but not as a Ray dashboard does; is --ray its URL?")
    return found


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "nothing"
