"""The steps of a run: each read from the mixture that it was drawn from. Most runs have one; see continuation.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from manifest.artifact import Opened
from manifest.checkpoint import Timeline
from trainer.data.loader import StepBatch, StepSource, step_source, view_names
from trainer.recipe import PhaseRecipe


@dataclass(frozen=True)
class MixtureSources:
    """Reads steps for one rank. `sources` by the id of their mixture.

    views: what the `views` of a batch are indices into, those of all mixtures of the run in order of name.
    """

    timeline: Timeline
    sources: Mapping[str, StepSource]
    views: tuple[str, ...]

    def of_segment(self, segment: int) -> StepSource:
        """The source of a segment. Raises KeyError if its mixture is not among `sources`."""
        return self.sources[self.timeline.order.segments[segment].mixture]

    def read(self, step: int) -> StepBatch:
        """The rank's part of a step. Raises as `StepSource.read` does, and KeyError as `of_segment`."""
        return self.of_segment(self.timeline.step(step).segment).read(step)


def mixture_sources(
    mixtures: Sequence[Opened],
    timeline: Timeline,
    *,
    rank: int,
    world: int,
    phases: Mapping[str, PhaseRecipe],
    packs: Sequence[Opened] = (),
) -> MixtureSources:
    """The sources over some of a run's mixtures. packs: of the run. Raises ArtifactError as `step_source` does."""
    sources = {
        mixture.manifest.id: step_source(mixture, timeline, rank=rank, world=world, phases=phases, packs=packs)
        for mixture in mixtures
    }
    return MixtureSources(timeline, sources, view_names(timeline))


def mixtures_from(timeline: Timeline, step: int) -> list[str]:
    """The ids of the mixtures that the steps from `step` on read, each once."""
    segments = enumerate(zip(timeline.order.segments, timeline.paces, strict=True))
    left = [segment.mixture for index, (segment, pace) in segments if pace.first_step + timeline.steps(index) > step]
    return list(dict.fromkeys(left))
