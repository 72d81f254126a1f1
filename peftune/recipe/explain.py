"""Say a pydantic error in the words of the recipe's user."""

from __future__ import annotations

import difflib
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from peftune.errors import suggestion
from peftune.recipe.positions import Fault, KeyPath, Positions

_LONGEST_SHOWN = 60
_WANTED = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_type": "an integer",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "string_type": "text",
    "tuple_type": "a list",
}


def explain(
    error: ValidationError, model: type[BaseModel], prefix: KeyPath, positions: Positions
) -> list[Fault]:
    """Turn what pydantic found into one fault for each key, with its place.

    Args:
        error: what pydantic found.
        model: class that was validated.
        prefix: where in the recipe that class stands.
        positions: where each key was written.
    """
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        by_path.setdefault(_path(details["loc"], model), []).append(details)
    return [
        Fault(positions.of((*prefix, *path)), (*prefix, *path), _message(found, path, model))
        for path, found in by_path.items()
        if not _has_faulty_entry(path, by_path)
    ]


def _has_faulty_entry(path: KeyPath, faulty: dict[KeyPath, list[ErrorDetails]]) -> bool:
    """A list or mapping is not complained of where one of its entries is."""
    return any(len(other) > len(path) > 0 and other[: len(path)] == path for other in faulty)


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


def _message(found: list[ErrorDetails], path: KeyPath, model: type[BaseModel]) -> str:
    """Join what each branch of a union wants into one sentence."""
    first = found[0]
    if first["type"] == "extra_forbidden":
        parent = _model_in(_annotation_at(model, path[:-1]))
        return f"unknown key. {suggestion(str(path[-1]), parent.model_fields if parent else ())}"
    if first["type"] == "missing":
        return "this key is missing; it must be given."
    for details in found:
        if details["type"] == "value_error":
            return details["msg"].removeprefix("Value error, ") + "."
    wishes = list(dict.fromkeys(_wish(details) for details in found))
    wanted = wishes[0] + "".join(f", or {wish.removeprefix('must be ')}" for wish in wishes[1:])
    hints = "".join(dict.fromkeys(_hint(details) for details in found))
    return f"{wanted} (got {_shown(first.get('input'))}).{hints}"


def _wish(details: ErrorDetails) -> str:
    """Say what a value must be."""
    kind, context = details["type"], details.get("ctx", {})
    if kind in _WANTED:
        return f"must be {_WANTED[kind]}"
    if kind == "too_short":
        return f"must have at least {context['min_length']} entries"
    if kind == "string_too_short":
        return "must not be empty"
    if kind == "string_pattern_mismatch":
        return f"must match the pattern {context['pattern']}"
    message = details["msg"].replace("Input should be", "must be").replace("Input should", "must")
    return f"{message[0].lower()}{message[1:]}"


def _hint(details: ErrorDetails) -> str:
    """Say what was probably meant."""
    kind, got = details["type"], details.get("input")
    if kind == "literal_error" and isinstance(got, str):
        expected = str(details.get("ctx", {}).get("expected", ""))
        options = [
            option.strip("'")
            for option in expected.replace(" or ", ", ").split(", ")
            if option.startswith("'")
        ]
        nearest = difflib.get_close_matches(got, options, n=1)
        return f" Did you mean '{nearest[0]}'?" if nearest else ""
    if kind == "string_type" and isinstance(got, bool | int | float):
        return f" Write it in quotes: '{_shown(got)}'."
    return ""


def _shown(value: object) -> str:
    """Write a value as a recipe would, cut short."""
    names = {None: "null", True: "true", False: "false"}
    plain = value is None or isinstance(value, bool)
    text = names[value] if plain else repr(value)  # type: ignore[index]
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel] | None:
    """Return the section that stands at a path, or None for a plain value or a choice."""
    found = _annotation_at(model, path)
    return found if _is_model(found) else None


def _annotation_at(model: type[BaseModel], path: KeyPath) -> Any:  # noqa: ANN401 - any type
    current: Any = model
    for part in path:
        if get_origin(current) is dict:
            current = get_args(current)[1]
            continue
        section = _model_in(current)
        if section is None or part not in section.model_fields:
            return None
        current = section.model_fields[str(part)].annotation
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any type
    """Return the section that a type is, or the one among its choices."""
    found = (choice for choice in (annotation, *get_args(annotation)) if _is_model(choice))
    return next(found, None)


def _is_model(annotation: Any) -> bool:  # noqa: ANN401 - any type
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
