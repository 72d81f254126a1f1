"""The JSON schema of `report.json`, derived from the classes that it is made of.

`report.schema.json` beside this file is what it returns; a test holds the two together, and
`python tools/write_report_schema.py` writes it anew.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import TypeAdapter

from peftune.runs.environment import Environment, RunEnvironment
from peftune.runs.report import OF_FOLDS, SCHEMA_VERSION, Run, Unfinished

Schema = dict[str, Any]

_NUMBER: Schema = {"type": "number"}
_FREE_KEYS: dict[tuple[str, str], Schema] = {
    ("Learning", "curve"): {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"step": {"type": "integer"}, "epoch": _NUMBER},
            "required": ["step", "epoch"],
            "additionalProperties": _NUMBER,
        },
    },
    ("Run", "environment"): {"$ref": "#/$defs/RunEnvironment"},
}
"""What the classes leave open: a mapping of anything there is more than that in a report."""


def report_json_schema() -> Schema:
    """Describe what a report holds: a finished run's numbers, or why there are none.

    Every key is required but those of a cross-validation, and no other is allowed; only mappings by label, metric, baseline or
    package are open.
    """
    definitions: Schema = {}
    for kind in (Run, Unfinished, RunEnvironment):
        described = TypeAdapter(kind).json_schema()
        definitions |= described.pop("$defs", {})
        definitions[kind.__name__] = described
    for name, definition in definitions.items():
        _refine(name, definition)
    del definitions["Run"]["properties"]["folder"]
    for name in ("Run", "Unfinished"):
        properties = definitions[name]["properties"]
        status = properties.pop("status")
        definitions[name]["properties"] = {**_head(), "status": status, **properties}
        required = [key for key in definitions[name]["properties"] if key not in OF_FOLDS]
        definitions[name]["required"] = required
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "peftune report",
        "oneOf": [{"$ref": "#/$defs/Run"}, {"$ref": "#/$defs/Unfinished"}],
        "$defs": dict(sorted(definitions.items())),
    }


def _head() -> Schema:
    return {
        "schema_version": {"const": SCHEMA_VERSION, "description": "Version of this layout."},
        "peftune_version": {"type": "string", "description": "Version that wrote it."},
    }


def _refine(name: str, definition: Schema) -> None:
    """Ask for every key and allow no other; say of each what its class's docstring says."""
    docstring = inspect.cleandoc(definition.pop("description"))
    meanings = _meanings(docstring)
    if name == RunEnvironment.__name__:
        meanings |= _meanings(inspect.getdoc(Environment) or "")
    definition["description"] = docstring.splitlines()[0]
    definition["additionalProperties"] = False
    definition["required"] = list(definition["properties"])
    definition.pop("title", None)
    for key, described in definition["properties"].items():
        described.pop("title", None)
        described.pop("default", None)
        if (name, key) in _FREE_KEYS:
            described.clear()
            described.update(_FREE_KEYS[name, key])
        if key in meanings:
            described["description"] = meanings[key]


def _meanings(docstring: str) -> dict[str, str]:
    """Read the `Args:` of a docstring: one entry a key, its lines joined."""
    section = re.search(r"^Args:\n((?:    .*\n?)+)", docstring, re.MULTILINE)
    if section is None:
        return {}
    entries = re.findall(r"^ {4}(\w+): ((?:.*\n?)(?:^ {5,}.*\n?)*)", section[1], re.MULTILINE)
    return {name: re.sub(r"\bNone\b", "null", " ".join(text.split())) for name, text in entries}
