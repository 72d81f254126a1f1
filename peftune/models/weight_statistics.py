"""Measure how far the weights of a backbone moved, and which moved unlike the same weight of other blocks."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from transformers import GPT2Config, GPT2Model

from peftune.errors import UsageError
from peftune.fastpath.lora_layers import factors_of, lora_layers
from peftune.models.architecture import backbone_of, head_of, trainable_parameters

OUTLIER_SCORE = 3.5
OUTLIER_FACTOR = 2.0
FEWEST_ALIKE = 4


@dataclass(frozen=True, slots=True)
class WeightChange:
    """How far a weight is from the base's.

    Args:
        weight: GPT-2's own name of it.
        kind: its name within a block; its whole name where it lies in none.
        block: number of its block, from 0; None for embeddings and the last layer norm.
        norm: Frobenius norm of the change.
        relative: the same divided by the norm of the base's weight; None where that is zero.
        outlier: whether it moved much more, or much less, than the same weight of other blocks.
    """

    weight: str
    kind: str
    block: int | None
    norm: float
    relative: float | None
    outlier: bool = False


def weight_changes(
    weights: Mapping[str, torch.Tensor],
    base: Iterable[tuple[str, torch.Tensor]],
    config: GPT2Config,
) -> tuple[WeightChange, ...]:
    """Compare the weights of a tuned backbone with those of its base.

    Args:
        weights: of the tuned backbone, by GPT-2's own names, on the CPU.
        base: the base's, by the same names.
        config: of both.

    Returns:
        The weights that changed, in the order of the model.
    """
    places = _places(config)
    found = []
    for name, before in base:
        change = float((weights[name].double() - before.double()).norm())
        if change > 0:
            size = float(before.double().norm())
            block, kind = places[name]
            found.append(WeightChange(name, kind, block, change, change / size if size else None))
    order = {name: index for index, name in enumerate(places)}
    return with_outliers(sorted(found, key=lambda one: order[one.weight]))


def with_outliers(changes: Iterable[WeightChange]) -> tuple[WeightChange, ...]:
    """Mark the weights that moved otherwise than the same weight of other blocks.

    On the scale of logarithms, a weight stands out whose distance from the median of its kind is
    over 3.5 times the median distance (scaled by 0.6745, so that of normal values it is in
    standard deviations), and over a factor of two. Kinds of fewer than four blocks have no outliers.

    References:
        Iglewicz and Hoaglin 1993, How to Detect and Handle Outliers (the modified z-score).
    """
    changes = tuple(changes)
    alike: dict[str, list[float]] = {}
    for one in changes:
        if one.block is not None and one.relative:
            alike.setdefault(one.kind, []).append(math.log(one.relative))
    return tuple(
        dataclasses.replace(
            one,
            outlier=bool(one.relative)
            and one.block is not None
            and _stands_out(math.log(one.relative or 1.0), alike[one.kind]),
        )
        for one in changes
    )


def _stands_out(value: float, values: list[float]) -> bool:
    if len(values) < FEWEST_ALIKE:
        return False
    middle = statistics.median(values)
    spread = statistics.median(abs(other - middle) for other in values)
    distance = abs(value - middle)
    return distance > math.log(OUTLIER_FACTOR) and 0.6745 * distance > OUTLIER_SCORE * spread


def _places(config: GPT2Config) -> dict[str, tuple[int | None, str]]:
    """Ask a model of the same shape where each weight lies: its block, and its name there."""
    with torch.device("meta"):
        backbone = GPT2Model(config)
    inside: dict[int, tuple[int | None, str]] = {
        id(weight): (index, name)
        for index, block in enumerate(backbone.h)
        for name, weight in block.named_parameters()
    }
    return {
        name: inside.get(id(weight), (None, name)) for name, weight in backbone.named_parameters()
    }


def squared_drift(
    model: nn.Module,
    before: Mapping[str, torch.Tensor],
    importance: Mapping[str, torch.Tensor] | None = None,
) -> torch.Tensor:
    """Sum the squared changes of the backbone's weights since the start.

    A low-rank update counts as the change of the weight that it adapts. Without `importance` its
    norm is taken of the small products of its factors and the update itself is never formed.

    Args:
        model: a prepared model.
        before: the trainable weights before training, from `snapshot`.
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
        for _, layer in lora_layers(backbone_of(model))
        for adapter in layer.active_adapters
        for factor in factors_of(layer, adapter)
    }
    head = {id(weight) for weight in head_of(model).parameters()}
    inside = {id(weight): name for name, weight in backbone_of(model).named_parameters()}
    for name, weight in trainable_parameters(model).items():
        if id(weight) in counted or id(weight) in head:
            continue
        change = (weight - before[name]).float().square()
        if importance is not None:
            change = change * _importance(importance, inside.get(id(weight))).to(change.device)
        terms.append(change.sum())
    if not terms:
        message = "No weight but the head is trainable, so there is no drift from the base to hold down. Remove the regularizer, or choose another strategy."
        raise UsageError(message)
    return torch.stack(terms).sum()


def _low_rank_terms(
    model: nn.Module, importance: Mapping[str, torch.Tensor] | None
) -> Iterator[torch.Tensor]:
    for name, layer in lora_layers(backbone_of(model)):
        for adapter in layer.active_adapters:
            if layer.use_dora.get(adapter, False):
                message = "The change that DoRA makes is not a plain low-rank update, so its distance from the base cannot be held down. Set use_dora: false."
                raise UsageError(message)
            down, up = (factor.float() for factor in factors_of(layer, adapter))
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
