"""From a recipe file and overrides to a `Recipe`, or to every fault in one error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from peftune.errors import PluginError, RecipeError, UsageError, suggestion
from peftune.plugins import PluginGroup
from peftune.probes import PROBES, LanguageModelLoss, Probe
from peftune.recipe.overrides import (
    Assignment,
    Overrides,
    apply_overrides,
    assignments_for_each,
    read_overrides,
)
from peftune.recipe.recipe_files import anchor_paths, find_recipe
from peftune.recipe.resolve import recipe_values, with_strategy
from peftune.recipe.schema import Recipe
from peftune.recipe.search_space import tune_faults
from peftune.recipe.training import TrainingSection
from peftune.recipe.yaml_document import (
    Document,
    Fault,
    KeyPath,
    Positions,
    control_faults,
    explain,
    parse_document,
    raise_faults,
)
from peftune.regularizers import REGULARIZERS
from peftune.strategies import STRATEGIES, Full, Strategy, StrategyChoice, chosen_strategy
from peftune.strategies.base import class_of, name_of

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
    key = group.key
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


def read_recipe(
    source: str | Path | Recipe,
    overrides: Overrides = (),
    *,
    strategy: StrategyChoice | None = None,
) -> Recipe:
    """Read and check a recipe.

    Args:
        source: path of a YAML file, or the name of a shipped recipe such as `quickstart`; or a
            `Recipe`, whose files start from the working folder.
        overrides: `key=value` assignments with dotted keys, such as `training.seed=1`; or a
            mapping, such as `{"training.seed": 1}`.
        strategy: put in the place of the recipe's own before the overrides are; they are checked
            against it. One given by name, here or by `strategy.name`, keeps the hyper-parameters
            that the recipe sets and that both have.

    Returns:
        The recipe, its file paths absolute.

    Raises:
        PluginError: no strategy of that name is installed.
        RecipeError: the file cannot be read, or something in it is wrong; all faults are told.
        UsageError: an override is none, or two strategies are asked for.
    """
    assignments = read_overrides(overrides)
    if isinstance(source, Recipe) and not assignments:
        recipe = source if strategy is None else with_strategy(source, strategy)
        return anchor_paths(recipe, folder=Path.cwd(), overridden=set())
    document, folder = _document_of(source)
    choice = _choice(strategy, assignments)
    if choice is not None:
        _put_strategy(
            document, choice, keep=not any(one.path[0] == "strategy" for one in assignments)
        )
    overridden = apply_overrides(document, assignments)
    return anchor_paths(_build(document), folder=folder, overridden=overridden)


def read_for_each(
    source: str | Path | Recipe,
    overrides: Overrides,
    strategies: Sequence[StrategyChoice],
) -> dict[str, Recipe]:
    """Read a recipe once for each of several strategies.

    Args:
        source: as for `read_recipe`.
        overrides: as for `read_recipe`. A hyper-parameter that only some of the strategies have is
            set in those, with a line in the log.
        strategies: what to put in the place of the recipe's own.

    Returns:
        The recipes by the strategy's name.

    Raises:
        RecipeError: as for `read_recipe`; or an override sets a hyper-parameter that none has.
    """
    assignments = read_overrides(overrides)
    own = assignments_for_each(assignments, [class_of(choice) for choice in strategies])
    return {
        name_of(choice): read_recipe(source, own[name_of(choice)], strategy=choice)
        for choice in strategies
    }


def _document_of(source: str | Path | Recipe) -> tuple[Document, Path]:
    """Return the values of a recipe, and the folder that paths in it start from."""
    if isinstance(source, Recipe):
        values = recipe_values(source)
        given = {"name", *source.strategy.model_fields_set}
        values["strategy"] = {k: v for k, v in values["strategy"].items() if k in given}
        return Document(values, Positions("recipe")), Path.cwd()
    path, shown = find_recipe(source)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{shown}: byte {error.start} is not UTF-8; save the recipe as UTF-8."
        raise RecipeError(message) from error
    return parse_document(text, source=shown), path.resolve().parent


def _choice(
    strategy: StrategyChoice | None, assignments: Sequence[Assignment]
) -> StrategyChoice | None:
    """Return which strategy takes the place of the recipe's own; None if none does."""
    if strategy is None:
        names = [one.value for one in assignments if one.path == ("strategy", "name")]
        # A name that is none is told where it stands.
        return names[-1] if names and names[-1] in STRATEGIES.names() else None
    name = name_of(strategy)
    for one in assignments:
        if one.strategy_name not in (None, name):
            message = f"{one.place}: the strategy is '{name}', which was asked for beside the recipe. Leave one of the two out, or set keys such as strategy.r alone."
            raise UsageError(message)
    return strategy


def _put_strategy(document: Document, choice: StrategyChoice, *, keep: bool) -> None:
    """Put a strategy in the place of the recipe's own, whose faults are told all the same.

    Args:
        document: the recipe; changed in place.
        choice: one given by name keeps what both have.
        keep: put it in as it is; otherwise as its fields, which can then be overridden.
    """
    own = document.values.get("strategy")
    faults: list[Fault] = []
    if own is not None:
        build_plugin(STRATEGIES, own, ("strategy",), document.positions, faults)
    document.faults += [fault for fault in faults if fault.path not in document.doubtful]
    if isinstance(choice, str):
        fields = {"name", *STRATEGIES.get(choice).model_fields}
        kept = own if isinstance(own, dict) else {}
        shared = {key: value for key, value in kept.items() if key in fields}
        document.values["strategy"] = {**shared, "name": choice}
    else:
        strategy = chosen_strategy(choice)
        document.values["strategy"] = strategy if keep else strategy.fields()


def _build(document: Document) -> Recipe:
    """Build the recipe, or raise with every fault of the YAML, the plug-ins and the schema."""
    values, positions = dict(document.values), document.positions
    # Nothing more is said of a value that holds what nobody sees.
    unseen = list(control_faults(values, (), positions))
    document.faults += unseen
    document.doubtful |= {fault.path for fault in unseen}
    faults: list[Fault] = []
    if "strategy" in values and not isinstance(values["strategy"], Strategy):
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
    raise_faults(dict.fromkeys([*document.faults, *clear]))
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


_FILES = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet")
_BUNDLED = "bundled"


def read_probe(text: str) -> Probe:
    """Build the probe that a command line names.

    Args:
        text: a file, a bundled text, a saved data set or a hub id, which `lm-loss` reads; one of
            them behind a type, such as `cloze:lambada.jsonl`; or what a recipe would say, such as
            `{type: cloze, file: lambada.jsonl, max_documents: 500}`.

    Raises:
        UsageError: the text names no probe or no file, or a field is wrong; each with its place.
    """
    if text.lstrip().startswith("{"):
        document = parse_document(text, source="--probe")
        return _built(document.values, document.positions, document.faults)
    kind, colon, source = text.partition(":")
    if not colon or kind == _BUNDLED or _exists(text):
        kind, source = LanguageModelLoss.name, text
    values = {PROBES.key: kind}
    if kind in PROBES.names():
        values["file" if _names_file(source.strip()) else "dataset_name"] = source.strip()
    return _built(values, Positions(f"--probe '{text}'"))


def _built(
    values: Mapping[str, object], positions: Positions, known: Sequence[Fault] = ()
) -> Probe:
    faults = [*known, *control_faults(values, (), positions)]
    probe = build_plugin(PROBES, values, (), positions, faults)
    raise_faults(faults)
    if probe is None:
        message = f"{positions.source}: the probe cannot be used."
        raise UsageError(message)
    return probe


def _names_file(source: str) -> bool:
    """Say whether a text is read from a file, which must be there if the name ends as one does.

    Raises:
        UsageError: there is no such file, or no name.
    """
    if not source:
        message = "The probe names no text. Write TYPE:TEXT, such as cloze:lambada.jsonl."
        raise UsageError(message)
    if not _exists(source) and source.lower().endswith(_FILES):
        message = f"There is no file '{source}'."
        raise UsageError(message)
    return _exists(source) and Path(source).is_file()


def _exists(name: str) -> bool:
    """Say whether there is such a file or folder; a name that cannot be one is none."""
    try:
        return Path(name).exists()
    except (OSError, ValueError):
        return False
