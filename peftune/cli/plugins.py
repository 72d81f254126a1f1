"""How a plug-in is listed."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel

from peftune.plugins import PluginGroup

Plugin = TypeVar("Plugin", bound=BaseModel)


def plugin_rows(group: PluginGroup[Plugin]) -> list[dict[str, str]]:
    """Describe every plug-in of a group; a broken one by its error."""
    loaded, broken = group.load_all()
    rows = []
    for name in group.names():
        if name in loaded:
            summary = (loaded[name].__doc__ or "").strip().splitlines()[0]
            fields = ", ".join(loaded[name].model_fields) or "-"
        else:
            summary, fields = f"BROKEN: {broken[name]}", "-"
        rows.append({group.kind: name, "package": group.package_of(name), "what": summary, "fields": fields})
    return rows
