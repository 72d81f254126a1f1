"""Set keys of a recipe: `key=value` on the command line, the same or a mapping in Python."""

from __future__ import annotations

import contextlib
import logging
import numbers
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftune.configuration import why_no_field
from peftune.errors import RecipeError, UsageError, printable, suggestion
from peftune.files.reading import given_name
from peftune.recipe.schema import SECTIONS
from peftune.recipe.yaml_document import Document, Fault, KeyPath, Place, parse_scalar
from peftune.strategies import Strategy

logger = logging.getLogger(__name__)

_PART = re.compile(r"(?P<name>[^\[\]]+)(?P<entries>(\[[0-9]{1,9}\])*)", re.ASCII)
_MOST_PARTS = 16
"""Parts of a key; those of a recipe have half as many."""

_LONGEST_SHOWN = 200
_STRATEGY = "strategy"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One key that is set.

    Args:
        path: the key.
        value: what it is set to, as YAML would read it.
        key: the key as it was written.
        place: where it was written, for messages.
    """

    path: KeyPath
    value: object
    key: str
    place: Place

    @property
    def strategy_field(self) -> str | None:
        """The hyper-parameter of a strategy that it sets, where it sets one."""
        inner = self.path[1:2]
        is_field = self.path[0] == _STRATEGY and inner not in ((), ("name",))
        return str(inner[0]) if is_field else None

    @property
    def strategy_name(self) -> object:
        """The strategy that it puts in, where it does."""
        if self.path == (_STRATEGY, "name"):
            return self.value
        whole = self.path == (_STRATEGY,) and isinstance(self.value, Mapping)
        return self.value.get("name") if whole else None  # type: ignore[attr-defined]


Overrides = Sequence[str | Assignment] | Mapping[str, Any]
"""`["training.max_steps=5"]`, or `{"training.max_steps": 5}`."""


def read_overrides(overrides: Overrides) -> tuple[Assignment, ...]:
    """Read assignments.

    Args:
        overrides: `key=value` with dotted keys, such as `training.seed=1` or
            `forgetting.probes[0].file=a.txt`; or a mapping of such keys to values. A mapping for a
            whole section, such as `{"training": {"max_steps": 5}}`, sets the keys that it names.

    Raises:
        RecipeError: an assignment is none.
        UsageError: a value is nothing that a recipe can hold.
    """
    if isinstance(overrides, str):
        return (_typed(overrides),)
    if isinstance(overrides, Mapping):
        return tuple(one for key, value in overrides.items() for one in _given(key, value))
    return tuple(one if isinstance(one, Assignment) else _typed(one) for one in overrides)


def apply_overrides(document: Document, assignments: Sequence[Assignment]) -> set[KeyPath]:
    """Set each assignment in the document; the schema then refuses keys that it lacks.

    Args:
        document: a recipe as read; changed in place.
        assignments: what to set, in this order.

    Returns:
        The keys that were set.

    Raises:
        RecipeError: an assignment names an entry that a list lacks.
    """
    for one in assignments:
        if not _assign(document.values, one.path, one.value):
            message = (
                f"{one.place}: the recipe has no list entry '{one.key}'; entries count from 0."
            )
            raise RecipeError(message)
        document.forget_faults(one.path)
        document.positions.record_override(one.path, one.place)
        if one.path[0] == "training":
            _forget_strategies_own(document, one.path[1:])
    return {one.path for one in assignments}


def assignments_for_each(
    assignments: Sequence[Assignment], strategies: Sequence[type[Strategy]]
) -> dict[str, list[Assignment]]:
    """Leave out of each strategy's overrides the hyper-parameters that only others have.

    Raises:
        RecipeError: none of the strategies has a hyper-parameter.
    """
    found: dict[str, list[Assignment]] = {strategy.name: [] for strategy in strategies}
    for one in assignments:
        field = one.strategy_field
        owners = [s.name for s in strategies if field is None or field in s.model_fields]
        if field is not None and not owners:
            known = {name for strategy in strategies for name in strategy.model_fields}
            reasons = filter(None, (why_no_field(field, strategy) for strategy in strategies))
            reason = next(reasons, None) or suggestion(field, known)
            raise RecipeError(str(Fault(one.place, one.path, f"unknown key. {reason}")))
        others = [name for name in found if name not in owners]
        if others:
            have = "has" if len(others) == 1 else "have"
            logger.info(
                "'%s' holds for %s; %s %s no such key",
                one.key,
                ", ".join(owners),
                ", ".join(others),
                have,
            )
        for name in owners:
            found[name].append(one)
    return found


def _typed(assignment: object) -> Assignment:
    """Read `key=value`."""
    if not isinstance(assignment, str):
        message = f"overrides are a list of key=value, such as ['training.seed=1'], or a mapping, such as {{'training.seed': 1}} (got {type(assignment).__name__} in a list)."
        raise UsageError(message)
    place = Place(f"command line '{_shown(assignment)}'")
    key, equals, text = assignment.partition("=")
    path = _key_path(key)
    if not equals or path is None:
        message = f"{place}: an override is key=value, such as training.seed=1."
        raise RecipeError(message)
    return Assignment(path, parse_scalar(text), key, place)


def _shown(text: str) -> str:
    """Return what was typed as a message shows it: in one line, not longer than it helps."""
    return printable(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")


def _given(key: object, value: object) -> Iterator[Assignment]:
    """Read one entry of a mapping."""
    place = Place(f"overrides[{_shown(repr(key))}]")
    path = _key_path(key) if isinstance(key, str) else None
    if path is None or not isinstance(key, str):
        message = f"{place}: a key is a dotted name, such as 'training.seed'."
        raise RecipeError(message)
    read = _plain(value, place)
    if isinstance(read, dict) and _sets_keys(path, read):
        for name, inner in read.items():
            yield Assignment((*path, name), inner, f"{key}.{name}", place)
    else:
        yield Assignment(path, read, key, place)


def _sets_keys(path: KeyPath, values: Mapping[str, object]) -> bool:
    """Say whether a mapping stands for the keys that it names, and not for a whole value.

    A section keeps its other keys. A strategy that is named is another one, with fields of its own.
    """
    is_strategy = path == (_STRATEGY,) and "name" not in values
    return is_strategy or (len(path) == 1 and path[0] in SECTIONS)


def _plain(value: object, place: Place, depth: int = 0) -> object:  # noqa: PLR0911 - one line a kind of value
    """Return a value as YAML would read it.

    Raises:
        UsageError: it is nothing that a recipe can hold.
    """
    if depth > _MOST_PARTS:
        message = f"{place}: a value is nested at most {_MOST_PARTS} deep."
        raise UsageError(message)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        with contextlib.suppress(OverflowError):
            return float(value)
    if isinstance(value, os.PathLike):
        return given_name(value, str(place))
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, place, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, place, depth + 1) for inner in value]
    if callable(fields := getattr(value, "fields", None)) and not isinstance(value, type):
        return _plain(fields(), place, depth + 1)  # a strategy, a probe or a regularizer
    message = f"{place}: a value is text, a number, True, False, None, a list or a mapping (got {type(value).__name__})."
    raise UsageError(message)


def _forget_strategies_own(document: Document, key: KeyPath) -> None:
    """An override wins: a key of `training` set there holds for every strategy."""
    compare = document.values.get("compare")
    own = compare.get("training") if isinstance(compare, dict) else None
    for strategy, keys in own.items() if isinstance(own, dict) else ():
        for name in set(keys) & set(key[:1]) if isinstance(keys, dict) else ():
            del keys[name]
            document.forget_faults(("compare", "training", strategy, name))


def _key_path(key: str) -> KeyPath | None:
    """Read a dotted key; None if it is none, or deeper than any key of a recipe."""
    path: KeyPath = ()
    if key.count(".") + key.count("[") >= _MOST_PARTS:
        return None
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
