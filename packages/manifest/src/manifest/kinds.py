"""Which record a manifest's `kind` is read as; every other kind is a stage's `Artifact`."""

from __future__ import annotations

from manifest.checkpoint import Checkpoint
from manifest.mixture import Mixture
from manifest.record import Artifact, Manifest
from manifest.report import Report

KINDS: dict[str, type[Manifest]] = {"mixture": Mixture, "checkpoint": Checkpoint, "report": Report}

SCHEMAS: dict[str, type[Manifest]] = {"artifact": Artifact, **KINDS}
