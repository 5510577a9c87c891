"""A YAML file → its top-level mapping. A key that stands twice is an error; the second would win in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from manifest.errors import RecipeError


class _Loader(yaml.SafeLoader):
    """Plain values only, and every key once."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node)
        if not isinstance(key, str | int | float | bool | None):
            raise yaml.constructor.ConstructorError(None, None, "a key is no plain value", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice; keep one", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping at the top of a YAML file. Raises RecipeError if there is no such file or no such mapping."""
    try:
        # A SafeLoader with one more check: it builds plain values only.
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: there is no such file; give the path of a YAML recipe") from error
    except OSError as error:
        raise RecipeError(f"{path}: {error.strerror}; expected a recipe in YAML") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path}: found {type(content).__name__} at the top; expected keys and values")
    return content
