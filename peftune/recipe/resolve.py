"""Fill in what a recipe leaves to the strategy, and put another strategy in its place."""

from __future__ import annotations

import dataclasses
from typing import Any

from pydantic import ValidationError

from peftune.recipe.explain import explain
from peftune.recipe.positions import Positions, raise_faults
from peftune.recipe.schema import CompareSection, Recipe
from peftune.recipe.task import METRICS, TaskName
from peftune.recipe.training import TrainingSection
from peftune.recipe.tune import TuneSection
from peftune.strategies import STRATEGIES, Strategy, StrategyChoice, chosen_strategy


def with_strategy(recipe: Recipe, strategy: StrategyChoice) -> Recipe:
    """Put another strategy into a recipe.

    A strategy given by name keeps the hyper-parameters that the recipe sets and that both have
    (`r` of `lora` serves `lora-8bit` too), so that a comparison compares like with like.

    Raises:
        PluginError: no strategy of that name.
        UsageError: what is given is no strategy.
        RecipeError: a hyper-parameter that both have is out of the other's bounds.
    """
    if not isinstance(strategy, str):
        return recipe.model_copy(update={"strategy": chosen_strategy(strategy)})
    if strategy == recipe.strategy.name:
        return recipe
    chosen = STRATEGIES.get(strategy)
    shared = recipe.strategy.model_fields_set & set(chosen.model_fields)
    kept = {name: getattr(recipe.strategy, name) for name in shared}
    try:
        return recipe.model_copy(update={"strategy": chosen.model_validate(kept)})
    except ValidationError as error:
        source = f"strategy '{strategy}', with the values that the recipe has for '{recipe.strategy.name}'"
        raise_faults(explain(error, chosen, (), Positions(source)))
        raise


def resolve(recipe: Recipe) -> Recipe:
    """Fill every default: per-strategy training keys first, then the strategy's own defaults.

    What concerns other strategies (`compare`) and other values (`tune`) is no part of a run.
    """
    overrides: dict[str, Any] = recipe.compare.training.get(recipe.strategy.name, {})
    stages = tuple(
        stage.model_copy(
            update={"training": _filled(stage.training.model_dump(), recipe.strategy, stage.task)}
        )
        for stage in recipe.stages
    )
    training = _filled({**recipe.training.model_dump(), **overrides}, recipe.strategy, recipe.task)
    resolved = recipe.model_copy(
        update={
            "stages": stages,
            "training": training,
            "compare": CompareSection(),
            "tune": TuneSection(),
        }
    )
    return with_seed(resolved, training.seed)


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    """Put another seed into a recipe; its stages have the same one."""
    stages = tuple(
        stage.model_copy(update={"training": stage.training.model_copy(update={"seed": seed})})
        for stage in recipe.stages
    )
    training = recipe.training.model_copy(update={"seed": seed})
    return recipe.model_copy(update={"stages": stages, "training": training})


def tuned_metric(recipe: Recipe) -> str:
    """Return the validation metric that a search improves."""
    chosen = recipe.tune.metric or recipe.training.metric_for_best_model
    return chosen or METRICS[recipe.task][0]


def _filled(values: dict[str, Any], strategy: Strategy, task: TaskName) -> TrainingSection:
    """Fill what the strategy and the task decide where the recipe does not."""
    defaults = {
        **dataclasses.asdict(strategy.training_defaults),
        "metric_for_best_model": METRICS[task][0],
    }
    filled = {key: value for key, value in defaults.items() if values[key] is None}
    return TrainingSection.model_validate({**values, **filled})
