"""What a plan says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftune.planning.memory import Memory


@dataclass(frozen=True, slots=True)
class StrategyPlan:
    """One strategy on one shape.

    Args:
        strategy: its name.
        size: `own`, or a published size of GPT-2.
        base: what the shape is called.
        learning_parameters: weights that learn.
        base_parameters: weights of the base without a head.
        computes_in: type that products are computed in.
        integers: whether the base is held in 8-bit integers.
        memory: the peak of a run and its parts, in bytes.
        artifact_bytes: what is saved.
        disk_bytes: most that a run's checkpoints and artifact take at any time; with fewer than
            three evaluations they take less.
        seconds_per_step: of an optimizer step on a batch of the mean size.
        seconds_per_epoch: of the steps of an epoch, without evaluations; None where the number of
            rows is not known.
        fits: whether the peak is at most what is available.
        checkpointed_peak: the peak with activation checkpointing, where it does not fit without.
    """

    strategy: str
    size: str
    base: str
    learning_parameters: int
    base_parameters: int
    computes_in: str
    integers: bool
    memory: Memory
    artifact_bytes: int
    disk_bytes: int
    seconds_per_step: float
    seconds_per_epoch: float | None
    fits: bool
    checkpointed_peak: int | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a recipe would need, for each strategy and shape.

    Args:
        recipe: its name.
        device: `cpu`, or the name of the GPU.
        threads: that torch computes with.
        available_bytes: memory that a run can have.
        products: measured multiplications and additions a second, in units of 1e9, by type and
            width.
        copied: measured bytes a second that are read and written, in units of 1e9.
        batch_size: rows of a forward pass.
        lengths: where the lengths of the texts come from.
        plans: shape by shape, strategy by strategy.
        unplanned: strategies that cannot be planned, with the reason.
        advice: what follows, in sentences.
    """

    recipe: str
    device: str
    threads: int
    available_bytes: int
    products: Mapping[str, Mapping[int, float]]
    copied: float
    batch_size: int
    lengths: str
    plans: Sequence[StrategyPlan]
    unplanned: Mapping[str, str]
    advice: Sequence[str]

    def of(self, strategy: str, size: str = "own") -> StrategyPlan:
        """Return the plan of a strategy on a shape.

        Raises:
            KeyError: there is none.
        """
        for plan in self.plans:
            if (plan.strategy, plan.size) == (strategy, size):
                return plan
        raise KeyError((strategy, size))

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON holds it."""
        return dataclasses.asdict(self)
