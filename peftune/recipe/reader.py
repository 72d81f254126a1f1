"""From a recipe file and overrides to a `Recipe`, or to every fault in one error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from peftune.errors import RecipeError, suggestion
from peftune.plugins import PluginGroup
from peftune.probes import PROBES
from peftune.recipe.document import Document, parse_document
from peftune.recipe.explain import explain
from peftune.recipe.locate import anchor_paths, find_recipe
from peftune.recipe.overrides import apply_overrides
from peftune.recipe.plugin import build_plugin
from peftune.recipe.positions import Fault, KeyPath, Positions, raise_faults
from peftune.recipe.schema import Recipe
from peftune.recipe.space import tune_faults
from peftune.recipe.training import TrainingSection
from peftune.regularizers import REGULARIZERS
from peftune.strategies import STRATEGIES, Full


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
    overridden = apply_overrides(document, overrides)
    recipe = _build(document)
    return anchor_paths(recipe, folder=path.resolve().parent, overridden=overridden)


def _build(document: Document) -> Recipe:
    """Build the recipe, or raise with every fault of the YAML, the plug-ins and the schema."""
    values, positions = dict(document.values), document.positions
    faults: list[Fault] = []
    if "strategy" in values:
        # A faulty strategy is told already; any other lets the rest of the recipe be checked.
        values["strategy"] = (
            build_plugin(STRATEGIES, values["strategy"], ("strategy",), positions, faults)
            or Full()
        )
    if isinstance(values.get("forgetting"), dict):
        values["forgetting"] = _forgetting(values["forgetting"], positions, faults)
    faults += _comparison_faults(values, positions)
    faults += tune_faults(values, positions)
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        faults += explain(error, Recipe, (), positions)
        recipe = None
    clear = [fault for fault in faults if fault.path not in document.doubtful]
    raise_faults([*document.faults, *clear])
    if recipe is None:
        message = f"{positions.source}: the recipe cannot be used."
        raise RecipeError(message)
    return recipe


def _forgetting(
    values: Mapping[str, Any], positions: Positions, faults: list[Fault]
) -> dict[str, Any]:
    """Build the plug-ins that the section names; a faulty one is told and left out."""
    built = dict(values)
    groups: tuple[tuple[str, PluginGroup[Any]], ...] = (
        ("probes", PROBES),
        ("regularizers", REGULARIZERS),
    )
    for key, group in groups:
        if isinstance(values.get(key), list):
            found = [
                build_plugin(group, entry, ("forgetting", key, index), positions, faults)
                for index, entry in enumerate(values[key])
            ]
            built[key] = [plugin for plugin in found if plugin is not None]
    watched = values.get("during_training")
    if isinstance(watched, dict) and "probe" in watched:
        path: KeyPath = ("forgetting", "during_training", "probe")
        probe = build_plugin(PROBES, watched["probe"], path, positions, faults)
        # A faulty one is told already; without the section the rest can be checked.
        built["during_training"] = None if probe is None else {**watched, "probe": probe}
    return built


def _comparison_faults(values: Mapping[str, Any], positions: Positions) -> list[Fault]:
    """Check the per-strategy training keys as strictly as `training` itself."""
    shared, compare = values.get("training"), values.get("compare")
    own = compare.get("training") if isinstance(compare, dict) else None
    faults: list[Fault] = []
    for name, keys in own.items() if isinstance(own, dict) else ():
        path: KeyPath = ("compare", "training", name)
        if name not in STRATEGIES.names():
            message = f"unknown strategy '{name}'. {suggestion(name, STRATEGIES.names())}"
            faults.append(Fault(positions.of(path), path, message))
        if not isinstance(keys, dict):
            continue
        try:
            TrainingSection.model_validate(
                {**(shared if isinstance(shared, dict) else {}), **keys}
            )
        except ValidationError as error:
            found = explain(error, TrainingSection, path, positions)
            # What is wrong with the shared keys is told where they stand.
            faults += [fault for fault in found if fault.path == path or fault.path[3] in keys]
    return faults
