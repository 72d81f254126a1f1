"""Say a pydantic error in the words of the recipe's user."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from peftune.errors import suggestion
from peftune.recipe.positions import Fault, KeyPath, Positions

_LONGEST_SHOWN = 60


def explain(
    error: ValidationError, model: type[BaseModel], prefix: KeyPath, positions: Positions
) -> list[Fault]:
    """Turn each pydantic error into a fault with its place.

    Args:
        error: what pydantic found.
        model: class that was validated.
        prefix: where in the recipe that class stands.
        positions: where each key was written.
    """
    by_path: dict[KeyPath, list[str]] = {}
    for details in error.errors(include_url=False):
        path = _path(details["loc"], model)
        by_path.setdefault(path, []).append(_message(details, path, model))
    return [
        Fault(positions.of((*prefix, *path)), (*prefix, *path), _joined(messages))
        for path, messages in by_path.items()
    ]


def _joined(messages: list[str]) -> str:
    """Join what each branch of a union found into one sentence."""
    unique = list(dict.fromkeys(messages))
    return (
        " or ".join(message.rstrip(".") for message in unique) + "."
        if len(unique) > 1
        else unique[0]
    )


def _path(location: tuple[int | str, ...], model: type[BaseModel]) -> KeyPath:
    """Drop what pydantic adds to a path, such as the names of union branches."""
    path: KeyPath = ()
    for part in location:
        parent = _model_at(model, path)
        is_branch = (
            isinstance(part, str)
            and parent is None
            and ("[" in part or part in {"bool", "str", "int", "float"})
        )
        if not is_branch:
            path = (*path, part)
    return path


def _message(details: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> str:
    kind, got = details["type"], details.get("input")
    if kind == "extra_forbidden":
        parent = _model_at(model, path[:-1])
        allowed = parent.model_fields if parent else {}
        return f"unknown key. {suggestion(str(path[-1]), allowed)}"
    if kind == "missing":
        return "this key is missing; it must be given."
    if kind == "value_error":
        return details["msg"].removeprefix("Value error, ") + "."
    message = details["msg"].replace("Input should be", "must be").replace("Input should", "must")
    if kind == "literal_error" and isinstance(got, str):
        options = (
            details.get("ctx", {})
            .get("expected", "")
            .replace("'", "")
            .replace(" or ", ", ")
            .split(", ")
        )
        nearest = difflib.get_close_matches(got, options, n=1)
        message += f"; did you mean '{nearest[0]}'?" if nearest else ""
    return f"{message[0].lower()}{message[1:]} (got {_shown(got)})."


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """Return the section that stands at a path, or None for a plain value."""
    current: Any = model
    for part in path:
        fields = (
            current.model_fields
            if isinstance(current, type) and issubclass(current, BaseModel)
            else {}
        )
        if part not in fields:
            return None
        current = fields[str(part)].annotation
    return current if isinstance(current, type) and issubclass(current, BaseModel) else None
