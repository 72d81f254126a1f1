"""The strategy interface: one frozen configuration, one required method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from peftune.configuration import Configuration
from peftune.errors import UsageError, suggestion
from peftune.plugins import PluginGroup

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class TrainingDefaults:
    """What a strategy wants from training where the recipe is silent.

    Args:
        learning_rate: peak learning rate, for GPT-2 of 124M and more.
        weight_decay: decay of the learning weights, per step, relative to the learning rate.
    """

    learning_rate: float
    weight_decay: float = 0.0


class Strategy(Configuration, ABC):
    """Say how the base model is loaded and which of its weights are trained, and nothing else.

    A strategy is its own configuration: its fields are its hyper-parameters. Whatever has
    `requires_grad` after `prepare` is the adapter; saving, restoring, byte counts, the reference
    ("the model as it was before") and the strengths between are derived from that by the core.
    """

    name: ClassVar[str]
    """How recipes and the command line call the strategy; equal to its entry-point name."""

    training_defaults: ClassVar[TrainingDefaults]
    """Learning rate and weight decay where the recipe is silent."""

    trains_backbone: ClassVar[bool] = True
    """Whether weights other than the classification head learn; checked after every `prepare`."""

    not_fields: ClassVar[Mapping[str, str]] = {
        name: f"It belongs to the training: set training.{name}."
        for name in (
            "learning_rate",
            "weight_decay",
            "num_train_epochs",
            "max_steps",
            "per_device_train_batch_size",
            "bf16",
            "seed",
        )
    }

    def load_kwargs(self) -> dict[str, Any]:
        """Return what `from_pretrained` needs beyond the usual, such as a `quantization_config`."""
        return {}

    @abstractmethod
    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Choose the weights that are trained; this changes the model in place and may wrap it.

        Args:
            model: a freshly loaded sequence classifier with a new head, in eval mode.

        Returns:
            The model to train: the argument itself, or a PEFT model around it. Before any
            training step it must compute exactly what the argument computed.
        """

    def fields(self) -> dict[str, Any]:
        """Return the name and every hyper-parameter, ready for a recipe or a manifest."""
        return {"name": self.name, **self.model_dump(mode="json")}


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
