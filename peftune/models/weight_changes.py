"""How far each weight of a trunk was moved, and which moved otherwise than its like."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from transformers import GPT2Config, GPT2Model

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
    """Compare the weights of a tuned trunk with those of its base.

    Args:
        weights: of the tuned trunk, by GPT-2's own names, on the CPU.
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
        trunk = GPT2Model(config)
    inside: dict[int, tuple[int | None, str]] = {
        id(weight): (index, name)
        for index, block in enumerate(trunk.h)
        for name, weight in block.named_parameters()
    }
    return {
        name: inside.get(id(weight), (None, name)) for name, weight in trunk.named_parameters()
    }
