"""When checkpoints are published: at the end of a phase, where the mixture changes, and as `save` says.

every_tokens: 1B     each time a billion tokens are full
every_steps: 1500    after step 1500, 3000, …
count: 136           so many in all, the last at the end, in equal parts of the steps

The run's `save` counts from its first step to its last; that of a phase, from the phase's first to its last.
"""

from __future__ import annotations

from manifest.checkpoint import Timeline
from trainer.recipe_save import SavePace
from trainer.run import Run
from trainer.timeline import tokens_before


def is_due(run: Run, done: int) -> bool:
    """Whether a checkpoint is due after `done` steps, at least one."""
    if any(pace.first_step == done for pace in run.timeline.paces[1:]):
        return True
    phase, steps = next((name, steps) for name, steps in run.timeline.phase_steps().items() if done - 1 in steps)
    own = run.recipe.phases[phase].save
    pace, counted = (own, steps) if own is not None else (run.recipe.save, range(run.timeline.total_steps))
    return _times(pace, run.timeline, counted, done) > _times(pace, run.timeline, counted, done - 1)


def _times(pace: SavePace, timeline: Timeline, counted: range, done: int) -> int:
    """How often one has been due by then, of the steps that are counted."""
    steps = done - counted.start
    if pace.every_steps is not None:
        return steps // pace.every_steps
    if pace.count is not None:
        return steps * pace.count // len(counted)
    assert pace.every_tokens is not None, "resolved when the run was made"
    return (tokens_before(timeline, done) - tokens_before(timeline, counted.start)) // pace.every_tokens
