"""From the mapping that names a plug-in to the plug-in, or to what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from peftune.errors import PluginError, suggestion
from peftune.plugins import PluginGroup
from peftune.recipe.explain import explain
from peftune.recipe.positions import Fault, KeyPath, Positions

Plugin = TypeVar("Plugin", bound=BaseModel)


def build_plugin(
    group: PluginGroup[Plugin],
    values: object,
    path: KeyPath,
    positions: Positions,
    faults: list[Fault],
) -> Plugin | None:
    """Build the plug-in that a mapping names, or tell what is wrong with it.

    Args:
        group: where the plug-in is registered.
        values: what was written.
        path: where the mapping stands.
        positions: where each of its keys was written.
        faults: grows by what is wrong.
    """
    key = group.name_field
    if not isinstance(values, Mapping):
        message = f"must be a mapping with the key '{key}' (got {values!r})."
        faults.append(Fault(positions.of(path), path, message))
        return None
    name = values.get(key)
    if not isinstance(name, str):
        message = f"must name a {group.kind}. {suggestion(str(name), group.names())}"
        faults.append(Fault(positions.of((*path, key)), (*path, key), message))
        return None
    try:
        plugin = group.get(name)
        return plugin.model_validate(
            {field: value for field, value in values.items() if field != key}
        )
    except PluginError as error:
        faults.append(Fault(positions.of((*path, key)), (*path, key), str(error)))
    except ValidationError as error:
        faults += explain(error, plugin, path, positions)
    return None
