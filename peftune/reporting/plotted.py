"""What the plots draw: marks in a plane, lines, levels on a scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peftune.stats.intervals import Interval


@dataclass(frozen=True, slots=True)
class Mark:
    """A strategy in a plane of two figures.

    Args:
        label: its name.
        series: its number.
        x: where it lies.
        y: where it lies.
        x_interval: 95% interval.
        y_interval: 95% interval.
        on_front: whether no other is better in both.
    """

    label: str
    series: int
    x: float
    y: float
    x_interval: Interval | None = None
    y_interval: Interval | None = None
    on_front: bool = True


@dataclass(frozen=True, slots=True)
class Line:
    """A curve; those of one label are named once.

    Args:
        label: what it is.
        series: number of its strategy.
        xs: from left to right.
        ys: as many.
        dash: 0 for a full line, 1 to 3 for kinds of broken ones.
        dotted: whether each value has a marker.
    """

    label: str
    series: int
    xs: Sequence[float]
    ys: Sequence[float]
    dash: int = 0
    dotted: bool = False


@dataclass(frozen=True, slots=True)
class Onset:
    """A place from which on something is seen.

    Args:
        label: what.
        x: from where on.
        series: number of the strategy.
    """

    label: str
    x: float
    series: int


@dataclass(frozen=True, slots=True)
class Level:
    """A score on a common scale.

    Args:
        label: whose.
        value: the score.
        interval: 95% interval.
        series: number of the strategy; None for a baseline.
    """

    label: str
    value: float
    interval: Interval | None
    series: int | None
