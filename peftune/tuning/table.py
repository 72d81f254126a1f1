"""What a search found as a person reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peftune.tuning.results import TunedStrategy, Tuning

LEGEND = "Values of the best trial, on the validation rows; the test rows were not read."


def tuning_rows(tuning: Tuning) -> list[dict[str, str]]:
    """One row a strategy: the best value, what gave it, and what it took."""
    return [
        {
            "strategy": tuned.strategy,
            tuning.metric: "-" if tuned.value is None else f"{tuned.value:.4f}",
            "parameters": _parameters(tuned.parameters),
            "complete": str(tuned.count("complete")),
            "pruned": str(tuned.count("pruned")),
            "failed": str(tuned.count("failed")),
            "examples seen": f"{tuned.examples_seen:,}",
        }
        for tuned in tuning.strategies
    ]


def notes_of(tuning: Tuning) -> list[str]:
    """Tell, a line each, what lies at an edge, what is to be run next, and what is missing."""
    lines = [f"{tuned.strategy}: {edge}" for tuned in tuning.strategies for edge in tuned.edges]
    lines += [_next(tuned) for tuned in tuning.strategies]
    if tuning.compare is not None:
        names = ",".join(tuned.strategy for tuned in tuning.strategies if tuned.best)
        lines.append(f"To compare: peftune compare {tuning.compare} --strategies {names}")
    elif tuning.reason:
        lines.append(f"No recipe for a comparison: {tuning.reason}.")
    return lines


def _next(tuned: TunedStrategy) -> str:
    if tuned.recipe is None:
        return tuned.why_without_winner()
    return f"{tuned.strategy}: peftune run {tuned.recipe}"


def _parameters(parameters: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key.partition('.')[2]} {_short(value)}" for key, value in parameters.items()
    )


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
