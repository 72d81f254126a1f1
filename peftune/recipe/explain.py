"""Say a pydantic error in the words of the recipe's user, with the place of each fault."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from peftune.configuration import field_messages
from peftune.recipe.positions import Fault, KeyPath, Positions
from peftune.recipe.schema import SECTIONS, Recipe


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
    messages = field_messages(error, model, instead=_where_it_belongs)
    return [
        Fault(positions.of((*prefix, *path)), (*prefix, *path), message)
        for path, message in messages.items()
    ]


def _where_it_belongs(name: str) -> str | None:
    """Name the parts of a recipe that have a key which stands where there is none of that name."""
    places = [name] if name in Recipe.model_fields and name not in SECTIONS else []
    for section in SECTIONS:
        annotation = Recipe.model_fields[section].annotation
        if isinstance(annotation, type) and name in getattr(annotation, "model_fields", ()):
            places.append(f"{section}.{name}")
    if not places:
        return None
    *others, last = (f"'{place}'" for place in places)
    return f"Did you mean {', '.join(others)} or {last}?" if others else f"Did you mean {last}?"
