"""How a training computes: decided as `train` decides it, on a model of the full shape."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from peftune.lean.gradients import kept_gradients
from peftune.lean.held import worth_holding
from peftune.lean.maps import Computing
from peftune.lean.training import lean_training
from peftune.models.parts import trainable_parameters, trunk_of
from peftune.recipe import Recipe
from peftune.training.precision import uses_bfloat16


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a training computes.

    Args:
        computing: products and their type.
        dropout: whether the trunk drops what its configuration says.
        bf16: whether it is computed in bfloat16.
        holds_bfloat16: whether the frozen trunk is held in bfloat16 as well.
        keeps_gradients: whether gradients keep their memory from step to step.
        looks_back: whether weights as they were before are read while training.
    """

    computing: Computing
    dropout: bool
    bf16: bool
    holds_bfloat16: bool
    keeps_gradients: bool
    looks_back: bool


def conditions_of(model: nn.Module, recipe: Recipe, *, tokens: float) -> Conditions:
    """Decide as `peftune.training.train` does.

    Args:
        model: a prepared model of the full shape.
        recipe: a resolved recipe.
        tokens: of a training batch, in the mean.
    """
    section = recipe.training
    bf16 = uses_bfloat16(section.bf16, model)
    terms = any(term.weight > 0 for term in recipe.forgetting.regularizers)
    path = recipe.forgetting.path
    watched = recipe.forgetting.during_training or (path is not None and path.checkpoints)
    looked_at = bool(terms or watched)
    with kept_gradients(model):
        keeps = _keeps_gradients(model)
    return Conditions(
        computing=Computing.of(model, bf16=bf16, tokens=tokens),
        dropout=section.trunk_dropout,
        bf16=bf16,
        holds_bfloat16=bf16 and worth_holding(model, looked_at=looked_at),
        keeps_gradients=keeps,
        looks_back=looked_at,
    )


def _keeps_gradients(model: nn.Module) -> bool:
    """Give the smallest learning weight a gradient, and see whether `zero_grad` leaves it."""
    smallest = min(trainable_parameters(model).values(), key=lambda weight: weight.numel())
    smallest.grad = torch.zeros_like(smallest)
    model.zero_grad()
    kept = smallest.grad is not None
    smallest.grad = None
    return kept


def held(model: nn.Module, conditions: Conditions) -> dict[str, nn.Parameter]:
    """Return the weights that are held in bfloat16 while training, by name."""
    if not conditions.holds_bfloat16:
        return {}
    return {
        name: weight
        for name, weight in trunk_of(model).named_parameters()
        if not weight.requires_grad and weight.is_floating_point()
    }


@contextlib.contextmanager
def training_forward(model: nn.Module, conditions: Conditions) -> Iterator[nn.Module]:
    """Let a model compute inside as it does in a training."""
    device = trunk_of(model).wte.weight.device.type
    with (
        _without_notes(),
        lean_training(model, conditions.computing, dropout=conditions.dropout),
        torch.autocast(device, torch.bfloat16, enabled=conditions.bf16),
    ):
        yield model


@contextlib.contextmanager
def calls_of_trunk(model: nn.Module) -> Iterator[list[object]]:
    """Collect the calls of a trunk's own forward inside: the lean one, where it is used, makes none."""
    calls: list[object] = []
    trunk = trunk_of(model)
    handle = trunk.register_forward_hook(lambda *_: calls.append(None))
    try:
        yield calls
    finally:
        handle.remove()


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Leave out what is said of a training that begins: none does."""
    logger = logging.getLogger("peftune.lean")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
