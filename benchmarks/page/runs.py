"""Picking from a result what a section shows."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from benchmarks.contenders import CONTENDERS, TITLES
from benchmarks.settings import FLOOR
from benchmarks.shapes import Shape

Result = Mapping[str, Any]
Run = Mapping[str, Any]


def measured(result: Result) -> list[Run]:
    """List the runs of contenders that came to an end."""
    return [
        run
        for run in result["parts"].get("speed", {}).get("runs", [])
        if run["status"] == "measured" and run["contender"] != FLOOR
    ]


def works(runs: Sequence[Run]) -> list[tuple[str, int]]:
    """List what was measured: strategies with their batches."""
    return sorted({(run["strategy"], run["batch"]) for run in runs})


def grouped(runs: Sequence[Run], strategy: str, batch: int) -> Iterator[list[Run]]:
    """Give the runs of each contender at one piece of work."""
    for name in CONTENDERS:
        found = [
            run
            for run in runs
            if (run["contender"], run["strategy"], run["batch"]) == (name, strategy, batch)
        ]
        if found:
            yield found


def title(run: Run) -> str:
    """Return what a run's contender is called, with its precision where that was tried out."""
    name = TITLES[run["contender"]]
    return f"{name} ({run['precision']})" if run.get("precision") else name


def shape_of(result: Result) -> Shape:
    """Return the shape of the base."""
    return Shape(**{key: value for key, value in result["base"].items() if key != "kind"})


def median(values: Iterable[float | None]) -> float | None:
    """Return the median of the figures that are known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def percentile(values: Sequence[float], share: float) -> float:
    """Return the figure below which a share of them lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]
