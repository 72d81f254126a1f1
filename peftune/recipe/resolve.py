"""Fill in what a recipe leaves to the strategy, and put another strategy in its place."""

from __future__ import annotations

from typing import Any

from peftune.recipe.schema import CompareSection, Recipe
from peftune.strategies import STRATEGIES, Strategy


def with_strategy(recipe: Recipe, strategy: Strategy | str) -> Recipe:
    """Put another strategy into a recipe.

    A strategy given by name keeps the hyper-parameters that the recipe sets and that both have
    (`r` of `lora` serves `lora-8bit` too), so that a comparison compares like with like.

    Raises:
        PluginError: no strategy of that name.
    """
    if isinstance(strategy, Strategy):
        return recipe.model_copy(update={"strategy": strategy})
    if strategy == recipe.strategy.name:
        return recipe
    chosen = STRATEGIES.get(strategy)
    shared = recipe.strategy.model_fields_set & set(chosen.model_fields)
    kept = {name: getattr(recipe.strategy, name) for name in shared}
    return recipe.model_copy(update={"strategy": chosen(**kept)})


def resolve(recipe: Recipe) -> Recipe:
    """Fill every default: per-strategy training keys first, then the strategy's own defaults."""
    overrides: dict[str, Any] = recipe.compare.training.get(recipe.strategy.name, {})
    training = recipe.training.model_copy(update=overrides)
    defaults = recipe.strategy.training_defaults
    filled = {
        "learning_rate": training.learning_rate
        if training.learning_rate is not None
        else defaults.learning_rate,
        "weight_decay": training.weight_decay
        if training.weight_decay is not None
        else defaults.weight_decay,
    }
    return recipe.model_copy(
        update={"training": training.model_copy(update=filled), "compare": CompareSection()}
    )
