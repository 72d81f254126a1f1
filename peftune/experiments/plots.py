"""Plots of experiments: accuracy against forgetting at strengths, and learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from peftune.errors import UsageError, visible_lines
from peftune.experiments.learning_curve_results import LearningCurve
from peftune.experiments.rescale import Point
from peftune.files.publishing import replaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = (".pdf", ".png", ".svg")

_INTERVAL = "0.7"
"""Gray of the intervals, lighter than the points."""


def check_plot_path(path: Path) -> None:
    """Refuse a file that could not be written, before anything is measured.

    Raises:
        UsageError: its kind is unknown, or its folder is missing.
    """
    if path.suffix.lower() not in KINDS:
        message = f"'{path}' is of no known kind of picture. Allowed: {', '.join(KINDS)}."
        raise UsageError(message)
    if not path.parent.is_dir():
        message = f"There is no folder '{path.parent}' to write '{path.name}' into."
        raise UsageError(message)


def write_as_text(figure: Figure) -> None:
    """Show every text of a figure literally: no formulas, and invisible characters made visible."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_parse_math(False)
            text.set_text(visible_lines(text.get_text()))


def plot_points(points: Sequence[Point], path: Path, *, title: str) -> None:
    """Write a picture with a panel for each probe.

    Each point is a strength, labeled with its alpha; lines across it are 95% intervals.

    Args:
        points: from `sweep`, with labeled rows and at least one probe.
        path: a .pdf, .png or .svg file.
        title: what was rescaled.

    Raises:
        UsageError: the file cannot be written, or there is nothing to draw.
    """
    check_plot_path(path)
    names = [result.name for result in points[0].forgetting] if points else []
    if not names or points[0].learning is None:
        message = "A plot of accuracy against forgetting needs labeled rows and a probe."
        raise UsageError(message)
    figure = _figure(len(names))
    figure.suptitle(title)
    for name, axes in zip(names, figure.axes, strict=True):
        _draw(axes, points, name)
    write_as_text(figure)
    with replaced(path) as file:
        figure.savefig(file, format=path.suffix[1:].lower(), dpi=150)


def _figure(panels: int) -> Figure:
    from matplotlib.figure import Figure

    # Without pyplot there is no window and no state that outlives the picture.
    figure = Figure(figsize=(6.4 * panels, 4.8), layout="constrained")
    figure.subplots(1, panels)
    return figure


def _draw(axes: Axes, points: Sequence[Point], name: str) -> None:
    scores = [point.learning for point in points if point.learning is not None]
    found = [point.forgetting[name] for point in points]
    accuracies = [score.accuracy or 0.0 for score in scores]
    forgettings = [result.forgetting for result in found]
    axes.axhline(0, color="0.85", linewidth=1, zorder=0)
    for point, score, result, accuracy in zip(points, scores, found, accuracies, strict=True):
        if (across := score.ci95["accuracy"]) is not None:
            axes.hlines(result.forgetting, *across, color=_INTERVAL, linewidth=1, zorder=1)
        if (along := result.ci95) is not None:
            axes.vlines(accuracy, *along, color=_INTERVAL, linewidth=1, zorder=1)
        axes.annotate(
            f"{point.strength.alpha:g}",
            (accuracy, result.forgetting),
            xytext=(6, 6),
            textcoords="offset points",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1},
        )
    axes.plot(accuracies, forgettings, marker="o", zorder=2)
    axes.set_xlabel(f"accuracy on {scores[0].split} (share of {scores[0].n} rows)")
    axes.set_ylabel(f"forgetting on {name} ({found[0].unit}, positive is worse)")
    axes.set_title(
        "each point is a strength, labeled with its alpha; grey: 95% intervals over rows or documents, of this one model",
        fontsize="small",
    )


def plot_learning_curve(curve: LearningCurve, path: Path) -> None:
    """Write an SVG: the errors with 95% intervals, the fitted law, and where twice the rows would lead.

    Args:
        curve: what was measured.
        path: the file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    rows = [size.rows for size in curve.sizes]
    for size in curve.sizes:
        if size.ci95 is not None:
            axes.vlines(size.rows, *size.ci95, color="0.45", linewidth=1)
    axes.plot(rows, [size.error for size in curve.sizes], "o", label="measured, 95% intervals")
    if curve.law is not None:
        reach = np.geomspace(rows[0], 2 * rows[-1], 100)
        known = reach <= rows[-1]
        errors = np.array([curve.law.error_with(count) for count in reach])
        axes.plot(reach[known], errors[known], color="C0", linewidth=1, label="power law")
        axes.plot(reach[~known], errors[~known], color="C0", linewidth=1, linestyle="--")
        if curve.gain_ci95 is not None:
            last = curve.law.error_with(rows[-1])
            low, high = curve.gain_ci95
            axes.vlines(2 * rows[-1], last - high, last - low, color="C0", linewidth=1)
    axes.set_xscale("log", base=2)
    ticks = [*rows, 2 * rows[-1]]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlabel("training rows")
    axes.set_ylabel(f"error on {curve.validation_rows} validation rows")
    axes.set_title(f"{curve.name}, {curve.strategy}: more data worth it? {curve.worth}")
    axes.legend(frameon=False)
    write_as_text(figure)
    with replaced(path) as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
