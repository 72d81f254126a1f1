"""The installed strategies, ours and those of other packages alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftune.errors import UsageError, suggestion
from peftune.plugins import PluginGroup
from peftune.strategies.base import Strategy

STRATEGIES: PluginGroup[Strategy] = PluginGroup("peftune.strategies", "strategy", Strategy)  # type: ignore[type-abstract]

StrategyChoice = Strategy | type[Strategy] | Mapping[str, Any] | str
"""A strategy as people name one: `LoRA(r=8)`, `LoRA`, `{"name": "lora", "r": 8}` or `"lora"`."""


def chosen_strategy(choice: StrategyChoice) -> Strategy:
    """Make a strategy of what names one; fields that are not given have their defaults.

    Args:
        choice: a strategy; its class; its name; or a mapping with `name` and its fields.

    Raises:
        PluginError: no strategy of that name is installed.
        UsageError: a field is unknown or impossible, or it names no strategy at all.
    """
    if isinstance(choice, Strategy):
        return choice
    if isinstance(choice, type) and issubclass(choice, Strategy):
        return choice()
    if isinstance(choice, str):
        return STRATEGIES.get(choice)()
    if isinstance(choice, Mapping):
        fields = {str(key): value for key, value in choice.items()}
        name = fields.pop("name", None)
        if not isinstance(name, str):
            message = f"A mapping names its strategy under 'name', such as {{'name': 'lora', 'r': 8}} (got {name!r}). {suggestion(str(name), STRATEGIES.names())}"
            raise UsageError(message)
        return STRATEGIES.get(name)(**fields)
    message = f"A strategy is an instance such as peftune.LoRA(r=8), its name such as 'lora', or a mapping such as {{'name': 'lora', 'r': 8}} (got {_shown(choice)})."
    raise UsageError(message)


def class_of(choice: StrategyChoice) -> type[Strategy]:
    """Return the class of the strategy that is chosen.

    Raises:
        PluginError: no strategy of that name is installed.
        UsageError: it cannot be made, or names no strategy at all.
    """
    return STRATEGIES.get(choice) if isinstance(choice, str) else type(chosen_strategy(choice))


def name_of(choice: StrategyChoice) -> str:
    """Return the name of the strategy that is chosen."""
    return choice if isinstance(choice, str) else chosen_strategy(choice).name


def _shown(choice: object) -> str:
    if isinstance(choice, type):
        return f"the class {choice.__name__}"
    return "None" if choice is None else f"an object of the class {type(choice).__name__}"
