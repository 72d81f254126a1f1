"""The JSON schema of recipes, installed plug-ins included."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, Field, create_model

from peftune.plugins import PluginGroup
from peftune.probes import PROBES
from peftune.recipe.schema import DuringTrainingSection, ForgettingSection, Recipe
from peftune.regularizers import REGULARIZERS
from peftune.strategies import STRATEGIES

Plugin = TypeVar("Plugin", bound=BaseModel)


def recipe_json_schema() -> dict[str, Any]:
    """Describe what a recipe may say, for editors that complete and check YAML."""
    watched = create_model(
        "DuringTrainingSection",
        __base__=DuringTrainingSection,
        probe=(dict[str, Any], _described(DuringTrainingSection, "probe")),
    )
    forgetting = create_model(
        "ForgettingSection",
        __base__=ForgettingSection,
        probes=(tuple[dict[str, Any], ...], _described(ForgettingSection, "probes", ())),
        regularizers=(
            tuple[dict[str, Any], ...],
            _described(ForgettingSection, "regularizers", ()),
        ),
        during_training=(
            watched | None,
            _described(ForgettingSection, "during_training", None),
        ),
    )
    model = create_model(
        "Recipe",
        __base__=Recipe,
        strategy=(dict[str, Any], Field(description=Recipe.model_fields["strategy"].description)),
        forgetting=(
            forgetting,
            Field(
                default_factory=forgetting,
                description=Recipe.model_fields["forgetting"].description,
            ),
        ),
    )
    schema = model.model_json_schema()
    definitions = schema["$defs"]
    described = {"description": Recipe.model_fields["strategy"].description}
    schema["properties"]["strategy"] = described | _one_of(STRATEGIES, "name", definitions)
    probes = _one_of(PROBES, "type", definitions)
    lists = definitions["ForgettingSection"]["properties"]
    lists["probes"]["items"] = probes
    lists["regularizers"]["items"] = _one_of(REGULARIZERS, "type", definitions)
    watching = definitions["DuringTrainingSection"]["properties"]
    watching["probe"] = {"description": watching["probe"]["description"]} | probes
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "peftune recipe",
    }


def _described(section: type[BaseModel], field: str, *default: object) -> Any:  # noqa: ANN401 - a pydantic field
    description = section.model_fields[field].description
    return Field(*default, description=description)


def _one_of(group: PluginGroup[Plugin], key: str, definitions: dict[str, Any]) -> dict[str, Any]:
    """Offer each plug-in of a group, told apart by its name."""
    options = []
    for name, plugin in group.load_all()[0].items():
        described = plugin.model_json_schema()
        definitions.update(described.pop("$defs", {}))
        described["properties"] = {key: {"const": name}, **described.get("properties", {})}
        described["required"] = [key, *described.get("required", [])]
        definitions[plugin.__name__] = described
        options.append({"$ref": f"#/$defs/{plugin.__name__}"})
    return {"oneOf": options}
