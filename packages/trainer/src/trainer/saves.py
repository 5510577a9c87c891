"""When checkpoints are published: at the end of a phase, where the mixture changes, and as `save` says.

every_tokens: 1B     each time a billion tokens are full
every_steps: 1500    after step 1500, 3000, …
count: 136           so many in all, the last at the end of the run, in equal parts of its steps
"""

from __future__ import annotations

from trainer.run import Run
from trainer.timeline import tokens_before


def is_due(run: Run, done: int) -> bool:
    """Whether a checkpoint is due after `done` steps."""
    if any(pace.first_step == done for pace in run.timeline.paces[1:]):
        return True
    return _times(run, done) > _times(run, done - 1)


def _times(run: Run, done: int) -> int:
    """How often one has been due by then."""
    save = run.recipe.save
    if save.every_steps is not None:
        return done // save.every_steps
    if save.count is not None:
        return done * save.count // run.timeline.total_steps
    assert save.every_tokens is not None, "resolved when the run was made"
    return tokens_before(run.timeline, done) // save.every_tokens
