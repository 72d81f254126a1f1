"""Which keys a search may vary, what it varies for a strategy, and a recipe with values put in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from peftune.errors import suggestion
from peftune.recipe.schema import Dimension, Recipe, TuneSection
from peftune.recipe.training import TrainingSection
from peftune.recipe.yaml_document import Fault, KeyPath, Positions, explain, raise_faults
from peftune.strategies import STRATEGIES, Strategy

LEARNING_RATE = "training.learning_rate"

_NOT_TUNED = (
    "seed",
    "metric_for_best_model",
    "eval_strategy",
    "eval_steps",
    "logging_steps",
    "report_to",
    "use_cpu",
)
_BATCH_SIZES = (8, 16, 32)
_RANKS = (4, 8, 16, 32)
_DECADE = 10

Space = Mapping[str, Dimension]
Schemas = Mapping[str, type[BaseModel]]


def space_of(recipe: Recipe) -> dict[str, Dimension]:
    """Return what a search varies for the strategy of a resolved recipe.

    The ranges that the strategy has for itself win over the shared ones; of those, the ones whose
    key the strategy has apply. Where the recipe names no range for it, the learning rate is searched
    over a decade on either side of the recipe's own, with the batch size and the rank.

    Args:
        recipe: resolved, its `tune` section kept.
    """
    own = recipe.tune.strategies.get(recipe.strategy.name)
    named = {**recipe.tune.space, **(own.space if own else {})}
    if not named:
        named = _default_space(recipe)
    fields = type(recipe.strategy).model_fields
    return {
        key: dimension
        for key, dimension in sorted(named.items(), key=lambda item: item[0], reverse=True)
        if not key.startswith("strategy.") or key.removeprefix("strategy.") in fields
    }


def with_parameters(recipe: Recipe, parameters: Mapping[str, Any]) -> Recipe:
    """Put values into a resolved recipe.

    Args:
        recipe: resolved.
        parameters: values by dotted key, `training.…` or `strategy.…`.

    Raises:
        RecipeError: the values do not fit together.
    """
    section, strategy = recipe.training, recipe.strategy
    return recipe.model_copy(
        update={
            "training": _with_values(section, "training", parameters),
            "strategy": _with_values(strategy, "strategy", parameters),
        }
    )


def value_at(recipe: Recipe, key: str) -> Any:  # noqa: ANN401 - any recipe value
    """Return what a resolved recipe has for a dotted key."""
    section, _, name = key.partition(".")
    return getattr(getattr(recipe, section), name)


def tune_faults(values: Mapping[str, Any], positions: Positions) -> list[Fault]:
    """Check the keys of a search and the ends of its ranges as strictly as the recipe itself.

    Args:
        values: the recipe as written.
        positions: where its keys were written.
    """
    try:
        section = TuneSection.model_validate(values.get("tune", {}))
    except ValidationError:
        return []  # the schema of the recipe tells of it
    faults = list(_space_faults(section.space, _all_schemas(), ("tune", "space"), positions))
    for name, own in section.strategies.items():
        path: KeyPath = ("tune", "strategies", name)
        if name not in STRATEGIES.names():
            message = f"unknown strategy '{name}'. {suggestion(name, STRATEGIES.names())}"
            faults.append(Fault(positions.of(path), path, message))
            continue
        schemas = {name: STRATEGIES.get(name)}
        faults += _space_faults(own.space, schemas, (*path, "space"), positions)
    return faults


def _default_space(recipe: Recipe) -> dict[str, Dimension]:
    rate = recipe.training.learning_rate
    if rate is None:
        message = "training.learning_rate is not resolved"
        raise ValueError(message)
    low, high = (float(f"{value:.6g}") for value in (rate / _DECADE, rate * _DECADE))
    return {
        LEARNING_RATE: Dimension(low=low, high=high, log=True),
        "training.per_device_train_batch_size": Dimension(choices=_BATCH_SIZES),
        "strategy.r": Dimension(choices=_RANKS),
    }


def _with_values(section: BaseModel, name: str, parameters: Mapping[str, Any]) -> BaseModel:
    kept = {field: getattr(section, field) for field in type(section).model_fields}
    put = {
        key.removeprefix(f"{name}."): value
        for key, value in parameters.items()
        if key.startswith(f"{name}.")
    }
    try:
        return type(section).model_validate({**kept, **put})
    except ValidationError as error:
        raise_faults(explain(error, type(section), (name,), Positions("these parameters")))
        raise


def _all_schemas() -> dict[str, type[Strategy]]:
    return STRATEGIES.load_all()[0]


def _space_faults(
    space: Space, strategies: Mapping[str, type[Strategy]], path: KeyPath, positions: Positions
) -> Iterator[Fault]:
    """Tell of keys that cannot be searched, and of values that the key itself would refuse."""
    schemas = _schemas_by_key(strategies)
    for key, dimension in space.items():
        place = (*path, key)
        if key not in schemas:
            yield Fault(positions.of(place), place, _why_not(key, schemas))
            continue
        for part, value in _ends(dimension):
            messages = {
                message
                for schema in schemas[key]
                for message in _value_faults(schema, key.partition(".")[2], value)
            }
            for message in sorted(messages):
                yield Fault(positions.of((*place, *part)), (*place, *part), message)


def _schemas_by_key(strategies: Schemas) -> dict[str, list[type[BaseModel]]]:
    schemas: dict[str, list[type[BaseModel]]] = {
        f"training.{name}": [TrainingSection]
        for name in TrainingSection.model_fields
        if name not in _NOT_TUNED
    }
    for strategy in strategies.values():
        for name in strategy.model_fields:
            schemas.setdefault(f"strategy.{name}", []).append(strategy)
    return schemas


def _why_not(key: str, known: Mapping[str, Any]) -> str:
    if key.partition(".")[2] in _NOT_TUNED and key.startswith("training."):
        return "this key is not tuned: it decides how a trial is scored, not how well it learns."
    return f"unknown key. {suggestion(key, known)}"


def _ends(dimension: Dimension) -> Iterator[tuple[KeyPath, object]]:
    """List the values at which a bound would be broken first, each with its place."""
    if dimension.choices is not None:
        for index, choice in enumerate(dimension.choices):
            yield ("choices", index), choice
        return
    # A range that has whole numbers at its ends and a fraction as its step holds fractions.
    kind = int if dimension.whole else float
    for part in ("low", "high"):
        yield (part,), kind(getattr(dimension, part))


def _value_faults(schema: type[BaseModel], name: str, value: object) -> list[str]:
    try:
        schema.model_validate({name: value})
    except ValidationError as error:
        faults = explain(error, schema, (), Positions(""))
        return [fault.message for fault in faults if fault.path[:1] == (name,)]
    return []
