"""An eval recipe: *what* is measured. Flags say on which checkpoint and where the report goes.

name, tasks, limit (documents per source), compare_to (the path of a report)
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, field_validator

from manifest.fields import Count, RecipeModel, nearest, validate
from trainer.reading import read_yaml

BITS_PER_BYTE = "bits_per_byte"
TASKS = (BITS_PER_BYTE,)


class EvalRecipe(RecipeModel):
    """An eval recipe. limit: documents per source, at most. compare_to: relative to the working directory."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    tasks: tuple[str, ...] = Field(min_length=1)
    limit: Annotated[Count, Field(gt=0)] | None = None
    compare_to: str | None = None

    @field_validator("tasks", mode="before")
    @classmethod
    def _tasks_exist(cls, tasks: object) -> object:
        if not isinstance(tasks, list | tuple):
            return tasks
        for task in tasks:
            if task not in TASKS:
                asked = task if isinstance(task, str) else str(task)
                raise ValueError(f"there is no task {asked!r}{nearest(asked, list(TASKS))}")
        if len(set(tasks)) < len(tasks):
            raise ValueError("a task stands twice; keep one")
        return tasks


def load_recipe(path: Path) -> EvalRecipe:
    """The recipe in a file. Raises RecipeError: no such file, not YAML, an unknown key or task."""
    return validate(EvalRecipe, read_yaml(path), str(path))
