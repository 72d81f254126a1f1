"""The JSON schema of recipes, installed plug-ins included."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core.core_schema import JsonOrPythonSchema

from peftune.plugins import PluginGroup
from peftune.probes import PROBES, Probe
from peftune.recipe.schema import Recipe
from peftune.regularizers import REGULARIZERS, Regularizer
from peftune.strategies import STRATEGIES, Strategy

Plugin = TypeVar("Plugin", bound=BaseModel)

_GROUPS: dict[type[BaseModel], PluginGroup[Any]] = {
    Strategy: STRATEGIES,
    Probe: PROBES,
    Regularizer: REGULARIZERS,
}
_GROUP = "plug-in of"
"""Key that stands for the plug-ins of a group until they are described."""


def recipe_json_schema() -> dict[str, Any]:
    """Describe what a recipe may hold, for editors that complete and check YAML."""
    schema = Recipe.model_json_schema(schema_generator=_WithPlugins)
    definitions = schema["$defs"]
    offers = {group.kind: _one_of(group, group.key, definitions) for group in _GROUPS.values()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **_offered(schema, offers),
        "title": "peftune recipe",
    }


class _WithPlugins(GenerateJsonSchema):
    def json_or_python_schema(self, schema: JsonOrPythonSchema) -> JsonSchemaValue:
        """Name the group where the schema takes any plug-in of one."""
        group = _GROUPS.get(schema["python_schema"].get("cls"))  # type: ignore[arg-type]
        return super().json_or_python_schema(schema) if group is None else {_GROUP: group.kind}


def _offered(part: Any, offers: dict[str, dict[str, Any]]) -> Any:  # noqa: ANN401 - any JSON
    """Put the plug-ins of a group in the place of its name, anywhere in a schema."""
    if isinstance(part, list):
        return [_offered(one, offers) for one in part]
    if not isinstance(part, dict):
        return part
    found = {key: _offered(value, offers) for key, value in part.items() if key != _GROUP}
    return found | offers[part[_GROUP]] if _GROUP in part else found


def _one_of(group: PluginGroup[Plugin], key: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Offer each plug-in of a group, distinguished by its name."""
    options = []
    for name, plugin in group.load_all()[0].items():
        described = plugin.model_json_schema()
        definitions.update(described.pop("$defs", {}))
        described["properties"] = {key: {"const": name}, **described.get("properties", {})}
        described["required"] = [key, *described.get("required", [])]
        definitions[plugin.__name__] = described
        options.append({"$ref": f"#/$defs/{plugin.__name__}"})
    return {"oneOf": options}
