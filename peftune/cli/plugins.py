"""How a plug-in is listed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftune.plugins import PluginGroup


def plugin_rows(group: PluginGroup[Any]) -> list[dict[str, str]]:
    """Describe every plug-in of a group; a broken one by its error."""
    loaded, broken = group.load_all()
    rows = []
    for name in group.names():
        if name in loaded:
            summary = _first_sentence(loaded[name].__doc__ or "no description")
            fields = ", ".join(loaded[name].model_fields) or "-"
        else:
            summary, fields = f"BROKEN: {broken[name]}", "-"
        rows.append(
            {
                group.kind: name,
                "package": group.package_of(name),
                "what": summary,
                "fields": fields,
            }
        )
    return rows


def _first_sentence(text: str) -> str:
    """Return a docstring's first sentence, up to its first full stop or colon, on one line."""
    paragraph = " ".join(text.strip().split("\n\n")[0].split())
    return re.split(r"[.:](?:\s|$)", paragraph)[0]
