"""A study over the tiny recipes of work_fixtures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from work_fixtures import data_recipe, eval_recipe, train_recipe

PEAK = "train.phases.only.schedule.peak"
WEIGHTS = "data.phases.only"


def study_file(directory: Path, **fields: Any) -> Path:
    """A study over the tiny recipes: two peak rates, unless `fields` say otherwise."""
    sizes = {"shared": {"tiny": {"layers": 1, "width": 16, "heads": 2, "filter": 32}}}
    recipes = {"data": data_recipe(), "train": train_recipe(), "eval": eval_recipe(), "sizes": sizes}
    for name, content in recipes.items():
        (directory / f"{name}.yaml").write_text(yaml.safe_dump(content))
    study = {
        "name": "rates",
        **{part: f"{part}.yaml" for part in ("data", "train", "eval")},
        "rate": "peak",
        "axes": {"peak": {"field": PEAK, "values": [0.01, 0.001]}},
        **fields,
    }
    file = directory / "study.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False))
    return file
