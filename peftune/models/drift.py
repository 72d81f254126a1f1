"""How far the trunk's weights have moved from the base's, with a gradient."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from peft.tuners.lora import LoraLayer
from torch import nn

from peftune.errors import UsageError
from peftune.models.parts import head_of, trainable_parameters, trunk_of


def squared_drift(
    model: nn.Module,
    before: Mapping[str, torch.Tensor],
    importance: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Sum the squared changes of the trunk's weights since the start.

    A low-rank update counts as the change of the weight that it adapts. Without `importance` its
    norm is taken of the small products of its factors and the update itself is never formed.

    Args:
        model: a prepared model.
        before: the learning weights at the start, from `snapshot`.
        importance: factor of each squared change, by the base's name of the tensor, in the base's
            own layout.

    Returns:
        A scalar, float32, with a gradient.

    Raises:
        UsageError: the change of a weight cannot be told from its parts, or has no importance.
    """
    terms = list(_low_rank_terms(model, importance))
    counted = {
        id(factor)
        for _, layer in _lora_layers(model)
        for adapter in layer.active_adapters
        for factor in _factors(layer, adapter)
    }
    head = {id(weight) for weight in head_of(model).parameters()}
    inside = {id(weight): name for name, weight in trunk_of(model).named_parameters()}
    for name, weight in trainable_parameters(model).items():
        if id(weight) in counted or id(weight) in head:
            continue
        change = (weight - before[name]).float().square()
        if importance is not None:
            change = change * _importance(importance, inside.get(id(weight))).to(change.device)
        terms.append(change.sum())
    if not terms:
        message = "No weight but the head learns, so there is no drift from the base to hold down. Remove the regularizer, or choose another strategy."
        raise UsageError(message)
    return torch.stack(terms).sum()


def _lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    for name, module in trunk_of(model).named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def _factors(layer: LoraLayer, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of an update: (rank, inputs) and (outputs, rank)."""
    if adapter in layer.lora_embedding_A:
        return layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter]
    return layer.lora_A[adapter].weight, layer.lora_B[adapter].weight


def _low_rank_terms(
    model: nn.Module, importance: Mapping[str, torch.Tensor] | None
) -> Iterator[torch.Tensor]:
    for name, layer in _lora_layers(model):
        for adapter in layer.active_adapters:
            if layer.use_dora.get(adapter, False):
                message = "The change that DoRA makes is no plain low-rank update, so its distance from the base cannot be held down. Set use_dora: false."
                raise UsageError(message)
            down, up = (factor.float() for factor in _factors(layer, adapter))
            scale = float(layer.scaling[adapter])
            if importance is None:
                yield scale**2 * ((up.T @ up) * (down @ down.T)).sum()
            else:
                # GPT-2's Conv1D holds its weight as (inputs, outputs), and so do its embeddings.
                update = scale * (up @ down).T
                factor = _importance(importance, f"{name}.weight").to(update.device)
                yield (update.square() * factor).sum()


def _importance(importance: Mapping[str, torch.Tensor], name: str | None) -> torch.Tensor:
    if name is None or name not in importance:
        message = f"The base has no weight '{name}', so nothing is known of its importance. Use another regularizer with this strategy."
        raise UsageError(message)
    return importance[name]
