"""Render tables of recipe keys, strategies, probes, verbs, findings and checks from the installed package.

A page asks for a table with a marker on a line of its own, such as `<!-- table: recipe -->`. The
text is made when the site is built, so it cannot differ from the code, and is never committed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from typer.main import get_command

from peftune.cli.main import app
from peftune.findings import CHECKS, FINDING_TYPES
from peftune.probes import PROBES
from peftune.recipe import Recipe
from peftune.recipe.schema import recipe_json_schema
from peftune.regularizers import REGULARIZERS
from peftune.strategies import STRATEGIES

MARKER = re.compile(r"^<!-- table: (?P<name>[a-z-]+) -->$", re.MULTILINE)

Schema = Mapping[str, Any]


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace the markers by tables; MkDocs calls this for every page."""
    return MARKER.sub(lambda match: TABLES[match["name"]](), markdown)


def recipe_table() -> str:
    """Describe every key of a recipe, section by section, without plug-ins."""
    schema = recipe_json_schema()
    top: dict[str, Schema] = {}
    parts: list[str] = []
    for key, described in schema["properties"].items():
        meaning = Recipe.model_fields[key].description or ""
        if "$ref" not in described:
            top[key] = {**described, "description": meaning}
            continue
        section = _definition(schema, described)
        keys = {f"{key}.{name}": field for name, field in section["properties"].items()}
        required = [f"{key}.{name}" for name in section.get("required", ())]
        parts.append(f"### {key}\n\n{meaning}\n\n{_key_table(keys, required)}")
    return "\n\n".join([_key_table(top, schema["required"]), *parts])


def strategies_table() -> str:
    """Describe the fields and training defaults of every installed strategy."""
    schema, parts = recipe_json_schema(), []
    for name, strategy in STRATEGIES.load_all()[0].items():
        defaults = strategy.training_defaults
        described = _definition(schema, {"$ref": f"#/$defs/{strategy.__name__}"})
        own = f"learning_rate {defaults.learning_rate:.1e}, weight_decay {defaults.weight_decay:g}"
        fields = {key: value for key, value in described["properties"].items() if key != "name"}
        table = _key_table(fields, ()) if fields else "It has no fields."
        parts.append(f"### {name}\n\nTraining defaults: `{own}`.\n\n{table}")
    return "\n\n".join(parts)


def probes_table() -> str:
    """Describe the fields of every installed probe."""
    schema, parts = recipe_json_schema(), []
    for name, probe in PROBES.load_all()[0].items():
        described = _definition(schema, {"$ref": f"#/$defs/{probe.__name__}"})
        fields = {key: value for key, value in described["properties"].items() if key != "type"}
        summary = (probe.__doc__ or "").strip().splitlines()[0]
        parts.append(f"### {name}\n\n{summary}\n\n{_key_table(fields, ())}")
    return "\n\n".join(parts)


def regularizers_table() -> str:
    """Describe the fields of every installed regularizer."""
    schema, parts = recipe_json_schema(), []
    for name, term in REGULARIZERS.load_all()[0].items():
        described = _definition(schema, {"$ref": f"#/$defs/{term.__name__}"})
        fields = {key: value for key, value in described["properties"].items() if key != "type"}
        summary = (term.__doc__ or "").strip().splitlines()[0]
        parts.append(f"### {name}\n\n{summary}\n\n{_key_table(fields, ())}")
    return "\n\n".join(parts)


def verbs_table() -> str:
    """Describe every verb of the command line with its arguments and options."""
    parts = []
    for name, command in verbs(get_command(app)):
        rows = [(_parameter_name(parameter), parameter.help or "") for parameter in command.params]
        table = f"\n\n{_rows(('argument or option', 'meaning'), rows)}" if rows else ""
        parts.append(f"### {name}\n\n{command.help}{table}")
    return "\n\n".join(parts)


def findings_table() -> str:
    """Describe every type of finding, by what it is looked for in."""
    headings = {
        "run": "In a run",
        "tuning": "In a search for hyper-parameters",
        "comparison": "In a comparison, or in runs of several seeds",
        "evaluation": "In the rows of an evaluation",
    }
    parts = []
    for scope, heading in headings.items():
        found = [each for each in FINDING_TYPES if each.scope == scope]
        rows = [(f"`{each.code}`", each.looks_for, each.threshold) for each in found]
        parts.append(f"### {heading}\n\n{_rows(('code', 'problem', 'condition'), rows)}")
    return "\n\n".join(parts)


def checks_table() -> str:
    """Describe every check of the data: what it looks for, when it is found, and what to do."""
    headings = ("code", "worst", "what is wrong", "found where", "what to do")
    rows = [
        (f"`{each.code}`", each.worst.upper(), each.looks_for, each.threshold, each.remedy)
        for each in CHECKS
    ]
    return _rows(headings, rows)


def verbs(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - typer ships its own click
    """List the commands of a group with their names; nested ones as `adapter rescale`."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from verbs(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def _parameter_name(parameter: Any) -> str:  # noqa: ANN401 - typer ships its own click
    option = parameter.param_type_name == "option"
    return (
        f"`{', '.join(parameter.opts)}`" if option else f"`{parameter.metavar or parameter.name}`"
    )


def _definition(schema: Schema, reference: Schema) -> Schema:
    found: Schema = schema["$defs"][reference["$ref"].removeprefix("#/$defs/")]
    return found


def _key_table(fields: Mapping[str, Schema], required: Sequence[str]) -> str:
    rows = [
        (
            f"`{key}`",
            _type(field),
            _default(field, is_required=key in required),
            field.get("description", ""),
        )
        for key, field in fields.items()
    ]
    return _rows(("key", "type", "default", "meaning"), rows)


def _rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines
    )


def _default(field: Schema, *, is_required: bool) -> str:
    if is_required:
        return "required"
    # A default that a factory makes is not in the JSON schema; only mappings have one.
    return f"`{json.dumps(field.get('default', {}))}`"


def _type(field: Schema) -> str:
    """Describe a JSON-schema type in words: `integer, > 0, ≤ 1024`."""
    if "anyOf" in field:
        return " or ".join(_type(branch) for branch in field["anyOf"])
    if "oneOf" in field or "$ref" in field:
        return "mapping"
    if "enum" in field:
        return " · ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    kind = {"object": "mapping", "null": "null"}.get(field["type"], field["type"])
    return ", ".join([kind, *_bounds(field)])


def _bounds(field: Schema) -> Iterator[str]:
    signs = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}
    for key, sign in signs.items():
        if key in field:
            yield f"{sign} {field[key]}"


TABLES: dict[str, Callable[[], str]] = {
    "recipe": recipe_table,
    "strategies": strategies_table,
    "probes": probes_table,
    "regularizers": regularizers_table,
    "verbs": verbs_table,
    "findings": findings_table,
    "checks": checks_table,
}
