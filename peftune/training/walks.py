"""Spare a training loop its walks through the model.

At every step transformers' Trainer goes through all modules of the model to put them into training
mode, to clip and to clear the gradients and to count the parameters: for a GPT-2 of 12 layers with
LoRA several milliseconds, in which nothing is found that was not found before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import (
    register_module_module_registration_hook,
    register_module_parameter_registration_hook,
)


@contextmanager
def walked_once(model: nn.Module) -> Iterator[None]:
    """Let a model answer from one walk what a training loop asks of it at every step.

    `train()`, `parameters()` and `num_parameters()` give what they gave before; a module or a
    parameter that is added to anything meanwhile makes them walk again, and so does a module that
    is not in training mode. A copy of the model has the methods of its class.

    Args:
        model: what is trained; its methods are its own again afterwards.
    """
    additions = _Additions()
    walk = _Walk(model, additions)
    answers = {"train": walk.train, "parameters": walk.parameters}
    if hasattr(model, "num_parameters"):
        answers["num_parameters"] = walk.num_parameters
    handles = (
        register_module_module_registration_hook(additions.note),
        register_module_parameter_registration_hook(additions.note),
    )
    own = vars(model)
    before = {name: own[name] for name in answers if name in own}
    own.update(answers)
    additions.watched = True
    try:
        yield
    finally:
        additions.watched = False
        for name in answers:
            del own[name]
        own.update(before)
        for handle in handles:
            handle.remove()


class _Additions:
    """Counts what is added to any module while it watches; a copy never watches."""

    def __init__(self) -> None:
        self.watched = False
        self.count = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return (_Additions, ())

    def note(self, *_: object) -> None:
        self.count += 1


class _Walk:
    """What a walk through a model found."""

    def __init__(self, model: nn.Module, additions: _Additions) -> None:
        self._model = model
        self._additions = additions
        self._train, self._parameters_of = model.train, model.parameters
        self._number_of: Any = getattr(model, "num_parameters", None)
        self._seen = -1
        self._modules: list[nn.Module] = []
        self._parameters: list[nn.Parameter] = []
        self._numbers: dict[bool, int] = {}

    def train(self, mode: bool = True) -> nn.Module:
        """Put every module into training mode, unless all are."""
        if mode is True and self._holds() and all(part.training for part in self._modules):
            return self._model
        return self._train(mode)

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Give the parameters, in the model's order."""
        if recurse and self._holds():
            return iter(self._parameters)
        return self._parameters_of(recurse)

    def num_parameters(
        self, only_trainable: bool = False, exclude_embeddings: bool = False
    ) -> int:
        """Count the parameters; those that learn may change, and are counted each time."""
        if only_trainable or not self._holds():
            return int(self._number_of(only_trainable, exclude_embeddings))
        if exclude_embeddings not in self._numbers:
            self._numbers[exclude_embeddings] = int(self._number_of(False, exclude_embeddings))
        return self._numbers[exclude_embeddings]

    def _holds(self) -> bool:
        """Say whether what was found still holds; walk again where something was added."""
        if not self._additions.watched:
            return False
        if self._seen != self._additions.count:
            self._seen = self._additions.count
            self._modules = list(self._model.modules())
            self._parameters = list(self._parameters_of())
            self._numbers = {}
        return True
