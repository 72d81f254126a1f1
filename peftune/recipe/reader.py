"""From a recipe file and overrides to a `Recipe`, or to every fault in one error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from peftune.errors import PluginError, RecipeError, suggestion
from peftune.plugins import PluginGroup
from peftune.probes import PROBES
from peftune.recipe.document import Document, parse_document, parse_scalar
from peftune.recipe.explain import explain
from peftune.recipe.locate import anchor_paths, find_recipe
from peftune.recipe.positions import Fault, KeyPath, Positions, raise_faults
from peftune.recipe.schema import Recipe, TrainingSection
from peftune.strategies import STRATEGIES, Full

Plugin = TypeVar("Plugin", bound=BaseModel)


def read_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        source: path of a YAML file, or the name of a shipped recipe such as `quickstart`.
        overrides: `key=value` assignments with dotted keys, such as `training.seed=1`.

    Returns:
        The recipe, its file paths absolute.

    Raises:
        RecipeError: the file cannot be read, or something in it is wrong; all faults are told.
    """
    path, shown = find_recipe(source)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{shown}: byte {error.start} is not UTF-8; save the recipe as UTF-8."
        raise RecipeError(message) from error
    document = parse_document(text, source=shown)
    overridden = _apply_overrides(document, overrides)
    recipe = _build(document)
    return anchor_paths(recipe, folder=path.resolve().parent, overridden=overridden)


def _apply_overrides(document: Document, overrides: Sequence[str]) -> set[KeyPath]:
    """Set each assignment in the document; the schema then refuses keys that it lacks."""
    changed: set[KeyPath] = set()
    for assignment in overrides:
        key, equals, text = assignment.partition("=")
        path = tuple(key.split("."))
        if not equals or not all(path):
            message = (
                f"command line '{assignment}': an override is key=value, such as training.seed=1."
            )
            raise RecipeError(message)
        target = document.values
        for part in path[:-1]:
            inner = target.get(part)
            if not isinstance(inner, dict):
                inner = target[part] = {}
            target = inner
        target[path[-1]] = parse_scalar(text)
        document.faults = [fault for fault in document.faults if fault.path[: len(path)] != path]
        document.positions.record_override(path, assignment)
        changed.add(path)
        if path[0] == "training":
            _forget_strategies_own(document.values, path[-1])
    return changed


def _forget_strategies_own(values: dict[str, Any], key: str) -> None:
    """The command line wins: a key of `training` set there holds for every strategy."""
    compare = values.get("compare")
    own = compare.get("training") if isinstance(compare, dict) else None
    for keys in own.values() if isinstance(own, dict) else ():
        if isinstance(keys, dict):
            keys.pop(key, None)


def _build(document: Document) -> Recipe:
    values, positions, faults = document.values, document.positions, list(document.faults)
    strategy = _plugin(
        STRATEGIES, values.get("strategy"), ("strategy",), positions=positions, faults=faults
    )
    probes = _probes(values.get("forgetting"), positions, faults)
    forgetting = values.get("forgetting")
    if isinstance(forgetting, dict) and isinstance(forgetting.get("probes"), list):
        forgetting = {**forgetting, "probes": probes}
    sections: dict[str, Any] = {"strategy": strategy or Full()} if "strategy" in values else {}
    sections |= {"forgetting": forgetting} if "forgetting" in values else {}
    try:
        recipe = Recipe.model_validate({**values, **sections})
    except ValidationError as error:
        raise_faults([*faults, *explain(error, Recipe, (), positions)])
        raise
    faults += _comparison_faults(recipe, positions)
    raise_faults(faults)
    return recipe


def _plugin(
    group: PluginGroup[Plugin],
    values: object,
    path: KeyPath,
    *,
    positions: Positions,
    faults: list[Fault],
) -> Plugin | None:
    """Build the plug-in that a mapping names, or tell what is wrong with it."""
    key = group.name_field
    if not isinstance(values, Mapping):
        faults.append(
            Fault(
                positions.of(path),
                path,
                f"must be a mapping with the key '{key}' (got {values!r}).",
            )
        )
        return None
    name = values.get(key)
    if not isinstance(name, str):
        faults.append(
            Fault(
                positions.of(path),
                (*path, key),
                f"must name a {group.kind}. {suggestion(str(name), group.names())}",
            )
        )
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


def _probes(forgetting: object, positions: Positions, faults: list[Fault]) -> list[BaseModel]:
    entries = forgetting.get("probes") if isinstance(forgetting, dict) else None
    if not isinstance(entries, list):
        return []
    built = [
        _plugin(PROBES, entry, ("forgetting", "probes", index), positions=positions, faults=faults)
        for index, entry in enumerate(entries)
    ]
    return [probe for probe in built if probe is not None]


def _comparison_faults(recipe: Recipe, positions: Positions) -> list[Fault]:
    """Check the per-strategy training keys as strictly as `training` itself."""
    faults: list[Fault] = []
    for name, overrides in recipe.compare.training.items():
        path: KeyPath = ("compare", "training", name)
        if name not in STRATEGIES.names():
            message = f"unknown strategy '{name}'. {suggestion(name, STRATEGIES.names())}"
            faults.append(Fault(positions.of(path), path, message))
        merged: dict[str, Any] = {**recipe.training.model_dump(), **overrides}
        try:
            TrainingSection.model_validate(merged)
        except ValidationError as error:
            faults += explain(error, TrainingSection, path, positions)
    return faults
