"""A recipe's YAML."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from manifest.errors import RecipeError


def read_yaml(path: Path) -> Any:
    """The content of a YAML file. Raises RecipeError with the line that cannot be read."""
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, _Loader)
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; expected a recipe in YAML") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error


def parse_yaml(text: str) -> Any:
    """The value of a text, read as a recipe's file is. Raises yaml.YAMLError."""
    return yaml.load(text, _Loader)


_BOOL, _STR = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:str"


class _Loader(yaml.SafeLoader):
    """Refuses a key that comes twice; YAML would keep the last in silence. A key is never a truth value: in YAML 1.1
    `on` would be one.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} comes twice", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
            if key.tag == _BOOL:
                key.tag = _STR
        return super().construct_mapping(node, deep)
