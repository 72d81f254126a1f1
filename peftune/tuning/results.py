"""What a search found: the best values of each strategy, what they cost, and every trial."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from peftune.recipe.tune import Dimension

NEAR_EDGE = 0.05
"""Share of a range, at either end, in which the best value is called at the edge."""

TrialState = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class Edge:
    """A best learning rate at the end of what was searched: a better one may lie beyond.

    Args:
        key: the dotted key.
        value: the best value.
        low: smallest value searched.
        high: largest value searched.
        side: which end it lies at.
    """

    key: str
    value: float
    low: float
    high: float
    side: Literal["low", "high"]

    def __str__(self) -> str:
        """Tell it in one sentence, with what to do."""
        return (
            f"the best {self.key}, {self.value:.2g}, lies at the {self.side} end of "
            f"[{self.low:.2g}, {self.high:.2g}]; a better one may lie beyond. "
            "Widen its range in tune.space."
        )


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial of the budget.

    Args:
        number: place in the budget, from 0; trial 0 has the recipe's own values.
        state: how it ended.
        value: the metric of the checkpoint that a run would keep, for a complete trial.
        parameters: values by dotted key.
        examples: rows read in training, repeats counted.
        message: why it failed.
    """

    number: int
    state: TrialState
    value: float | None
    parameters: Mapping[str, Any]
    examples: int
    message: str | None = None


@dataclass(frozen=True, slots=True)
class TunedStrategy:
    """What was found for one strategy.

    Args:
        strategy: its name.
        best: the best complete trial, the first of equals; None where none completed.
        trials: the whole budget, in order.
        edges: best learning rate at the end of its range.
        recipe: the winner as a recipe; None without a winner.
    """

    strategy: str
    best: TrialRecord | None
    trials: Sequence[TrialRecord]
    edges: Sequence[Edge]
    recipe: Path | None

    @property
    def value(self) -> float | None:
        """The best value of the metric."""
        return self.best.value if self.best else None

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The best values, by dotted key; empty where no trial completed."""
        return self.best.parameters if self.best else {}

    @property
    def examples_seen(self) -> int:
        """Rows read in training in all trials, repeats counted."""
        return sum(trial.examples for trial in self.trials)

    def why_without_winner(self) -> str:
        """Say in one line why there is no best trial."""
        last = [trial.message for trial in self.trials if trial.message][-1:]
        return f"No trial of '{self.strategy}' finished, of {len(self.trials)}. The last failure: {''.join(last)}"

    def count(self, state: TrialState) -> int:
        """Return how many trials ended in a state."""
        return sum(trial.state == state for trial in self.trials)


@dataclass(frozen=True, slots=True)
class Tuning:
    """What a search found for every strategy, with the same number of trials on the same rows.

    Args:
        folder: where the study, the winners and `tuning.json` lie.
        metric: the validation metric that was improved.
        trials: trials of each strategy.
        strategies: in the order in which they were asked for.
        compare: a recipe that compares the winners; None where there is none.
        reason: why there is none.
    """

    folder: Path
    metric: str
    trials: int
    strategies: Sequence[TunedStrategy]
    compare: Path | None
    reason: str | None = None

    def __getitem__(self, strategy: str) -> TunedStrategy:
        """Return what was found for a strategy."""
        for tuned in self.strategies:
            if tuned.strategy == strategy:
                return tuned
        raise KeyError(strategy)

    def as_json(self) -> dict[str, Any]:
        """Return the content of `tuning.json`; files are named relative to the folder."""
        return {
            "metric": self.metric,
            "trials": self.trials,
            "strategies": [_as_json(tuned) for tuned in self.strategies],
            "compare": self.compare and self.compare.name,
            "reason": self.reason,
        }


def edges_of(parameters: Mapping[str, Any], key: str, dimension: Dimension | None) -> list[Edge]:
    """Say whether the best value of a key lies at the end of its range, or of its choices."""
    value = parameters.get(key)
    if dimension is None or not isinstance(value, int | float):
        return []
    if dimension.choices is not None:
        numbers = [float(choice) for choice in dimension.choices if choice is not None]
        low, high, margin = min(numbers), max(numbers), 0.0
    else:
        low, high, margin = float(dimension.low or 0), float(dimension.high or 0), NEAR_EDGE
    scale = math.log if dimension.log else float
    place = (scale(value) - scale(low)) / (scale(high) - scale(low))
    if margin < place < 1 - margin:
        return []
    return [Edge(key, float(value), low, high, "low" if place <= margin else "high")]


def _as_json(tuned: TunedStrategy) -> dict[str, Any]:
    return {
        "strategy": tuned.strategy,
        "value": tuned.value,
        "parameters": dict(tuned.parameters),
        "complete": tuned.count("complete"),
        "pruned": tuned.count("pruned"),
        "failed": tuned.count("failed"),
        "examples_seen": tuned.examples_seen,
        "edges": [dataclasses.asdict(edge) for edge in tuned.edges],
        "recipe": tuned.recipe and tuned.recipe.name,
        "trials": [dataclasses.asdict(trial) for trial in tuned.trials],
    }
