"""The plots of the report: a few kinds, in one style, each a string of SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftune.reporting.plot_style import (
    DASHES,
    GRID,
    INK,
    MUTED,
    PAPER,
    beside,
    color,
    drawing,
    end_labels,
    in_lines,
    marker,
    svg_of,
)
from peftune.stats.intervals import Interval
from peftune.stats.scores import Bin

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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


def trade_off(
    marks: Sequence[Mark], paths: Sequence[Line], *, name: str, x_label: str, y_label: str
) -> str:
    """Draw strategies in the plane of two figures, with the paths that lead to them.

    Args:
        marks: the strategies; hollow where another is better in both.
        paths: thin lines; those of one strategy have its color.
        name: unlike that of every other plot of the page.
        x_label: higher is better.
        y_label: lower is better.
    """
    with drawing(4.0) as figure:
        axes = figure.subplots()
        axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
        for path in paths:
            axes.plot(
                path.xs,
                path.ys,
                color=color(path.series),
                linewidth=0.9,
                linestyle=DASHES[path.dash],
                marker=marker(path.series),
                markersize=2.2,
                alpha=0.75,
                zorder=2,
            )
        for mark in marks:
            _draw_mark(axes, mark)
        axes.margins(0.08)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        beside(figure, axes, [(mark.label, mark.x, mark.y) for mark in marks])
        return svg_of(figure, name)


def _draw_mark(axes: Axes, mark: Mark) -> None:
    shade = color(mark.series)
    if mark.x_interval is not None:
        axes.hlines(mark.y, *mark.x_interval, color=shade, linewidth=1.6, zorder=3)
    if mark.y_interval is not None:
        axes.vlines(mark.x, *mark.y_interval, color=shade, linewidth=1.6, zorder=3)
    axes.plot(
        [mark.x],
        [mark.y],
        color=shade,
        marker=marker(mark.series),
        markersize=9,
        markerfacecolor=shade if mark.on_front else PAPER,
        markeredgecolor=PAPER if mark.on_front else shade,
        markeredgewidth=1.2 if mark.on_front else 1.8,
        zorder=4,
    )


def curves(
    lines: Sequence[Line],
    *,
    name: str,
    x_label: str,
    y_label: str,
    limits: tuple[float, float] | None = None,
    zero: bool = False,
    onsets: Sequence[Onset] = (),
) -> str:
    """Draw curves, each named at its end.

    Args:
        lines: the curves.
        name: unlike that of every other plot of the page.
        x_label: under the plot.
        y_label: beside it.
        limits: lowest and highest value, where several plots share them.
        zero: whether to draw a line at zero.
        onsets: places that are marked by an upright line.
    """
    with drawing(3.0) as figure:
        axes = figure.subplots()
        if zero:
            axes.axhline(0, color=MUTED, linewidth=0.8, zorder=1)
        for onset in onsets:
            _draw_onset(axes, onset)
        for line in lines:
            axes.plot(
                line.xs,
                line.ys,
                color=color(line.series),
                linestyle=DASHES[line.dash % len(DASHES)],
                marker=marker(line.series) if line.dotted else "",
                markersize=4.5,
                markeredgecolor=PAPER,
                markeredgewidth=0.6,
                linewidth=1.5 if line.dotted else 1.1,
                zorder=3 if line.dotted else 2,
            )
        if limits is not None:
            axes.set_ylim(*limits)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        end_labels(axes, [(line.label, line.ys[-1]) for line in lines])
        return svg_of(figure, name)


def _draw_onset(axes: Axes, onset: Onset) -> None:
    axes.axvline(onset.x, color=color(onset.series), linewidth=1, linestyle=DASHES[2], zorder=1)
    axes.annotate(
        onset.label,
        (onset.x, 1.0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(4, -3),
        textcoords="offset points",
        verticalalignment="top",
        color=MUTED,
        fontsize=10,
    )


def levels(rows: Sequence[Level], *, name: str, x_label: str) -> str:
    """Draw scores on one scale, a line each, with their intervals.

    Args:
        rows: from the bottom to the top.
        name: unlike that of every other plot of the page.
        x_label: which score.
    """
    names = [in_lines(row.label) for row in rows]
    lines = 1 + max((name.count("\n") for name in names), default=0)
    with drawing(0.75 + max(0.29, 0.19 * lines) * len(rows)) as figure:
        axes = figure.subplots()
        for place, row in enumerate(rows):
            shade = MUTED if row.series is None else color(row.series)
            if row.interval is not None:
                axes.hlines(place, *row.interval, color=shade, linewidth=1.8, zorder=2)
            axes.plot(
                [row.value],
                [place],
                color=shade,
                marker="|" if row.series is None else marker(row.series),
                markersize=11 if row.series is None else 7,
                markeredgewidth=2.2 if row.series is None else 0,
                zorder=3,
            )
        axes.set_yticks(range(len(rows)), names)
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.06)
        axes.set_xlabel(x_label)
        return svg_of(figure, name)


def reliability(bins: Sequence[Bin], series: int, *, name: str) -> str:
    """Draw the accuracy of rows of like confidence, over the number of such rows.

    Args:
        bins: from `peftune.stats.scores`.
        series: number of the strategy.
        name: unlike that of every other plot of the page.
    """
    filled = [one for one in bins if one.count]
    with drawing(3.9) as figure:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
        above.plot((0, 1), (0, 1), color=MUTED, linewidth=1, linestyle=DASHES[1], zorder=1)
        above.annotate(
            "confidence = accuracy",
            (0.1, 0.0),
            xytext=(0, 5),
            textcoords="offset points",
            color=MUTED,
            fontsize=10,
        )
        xs: list[Any] = [one.confidence for one in filled]
        ys: list[Any] = [one.accuracy for one in filled]
        above.plot(
            xs,
            ys,
            color=color(series),
            marker=marker(series),
            markeredgecolor=PAPER,
            markeredgewidth=0.8,
            zorder=3,
        )
        above.set_ylim(0, 1.02)
        above.set_ylabel("accuracy")
        _draw_counts(below, bins, series)
        return svg_of(figure, name)


def _draw_counts(axes: Axes, bins: Sequence[Bin], series: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.bar(
        [(one.low + one.high) / 2 for one in bins],
        [one.count for one in bins],
        width=[0.86 * (one.high - one.low) for one in bins],
        color=color(series),
        edgecolor=GRID,
        linewidth=0,
    )
    axes.set_xlim(0, 1.02)
    axes.yaxis.set_major_locator(MaxNLocator(2, integer=True))
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("rows")
    axes.set_xlabel("confidence (probability of the predicted label)")
