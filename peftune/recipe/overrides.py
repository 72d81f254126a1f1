"""Set keys of a recipe on the command line: `key=value`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from peftune.errors import RecipeError
from peftune.recipe.document import Document, parse_scalar
from peftune.recipe.positions import KeyPath

_PART = re.compile(r"(?P<name>[^\[\]]+)(?P<entries>(\[[0-9]+\])*)")


def apply_overrides(document: Document, overrides: Sequence[str]) -> set[KeyPath]:
    """Set each assignment in the document; the schema then refuses keys that it lacks.

    Args:
        document: a recipe as read; changed in place.
        overrides: assignments such as `training.seed=1` or `forgetting.probes[0].file=a.txt`.

    Returns:
        The keys that were set.

    Raises:
        RecipeError: an assignment is none, or names an entry that a list lacks.
    """
    changed: set[KeyPath] = set()
    for assignment in overrides:
        key, equals, text = assignment.partition("=")
        path = _key_path(key)
        if not equals or path is None:
            message = (
                f"command line '{assignment}': an override is key=value, such as training.seed=1."
            )
            raise RecipeError(message)
        if not _assign(document.values, path, parse_scalar(text)):
            message = f"command line '{assignment}': the recipe has no list entry '{key}'; entries count from 0."
            raise RecipeError(message)
        document.forget_faults(path)
        document.positions.record_override(path, assignment)
        changed.add(path)
        if path[0] == "training":
            _forget_strategies_own(document, path[1:])
    return changed


def _forget_strategies_own(document: Document, key: KeyPath) -> None:
    """The command line wins: a key of `training` set there holds for every strategy."""
    compare = document.values.get("compare")
    own = compare.get("training") if isinstance(compare, dict) else None
    for strategy, keys in own.items() if isinstance(own, dict) else ():
        for name in set(keys) & set(key[:1]) if isinstance(keys, dict) else ():
            del keys[name]
            document.forget_faults(("compare", "training", strategy, name))


def _key_path(key: str) -> KeyPath | None:
    """Read a dotted key; None if it is none."""
    path: KeyPath = ()
    for part in key.split("."):
        match = _PART.fullmatch(part)
        if match is None:
            return None
        entries = (int(index) for index in re.findall(r"[0-9]+", match["entries"]))
        path = (*path, match["name"], *entries)
    return path


def _assign(target: Any, path: KeyPath, value: object) -> bool:  # noqa: ANN401 - a mapping or a list
    """Set a value below a mapping or a list; mappings on the way are made, list entries are not."""
    part, rest = path[0], path[1:]
    if isinstance(part, int):
        if not isinstance(target, list) or part >= len(target):
            return False
        inner = target[part]
    else:
        inner = target.get(part)
    if not rest:
        target[part] = value
        return True
    if isinstance(rest[0], str) and not isinstance(inner, dict):
        inner = target[part] = {}
    return _assign(inner, rest, value)
