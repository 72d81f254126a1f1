"""Draw the way from the base to the tuned model: accuracy against forgetting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from peftune.errors import UsageError
from peftune.files.publish import replaced
from peftune.runs.strengths import Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = (".pdf", ".png", ".svg")

_INTERVAL = "0.7"
"""Grey of the intervals, lighter than the points."""


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


def plot_points(points: Sequence[Point], path: Path, *, title: str) -> None:
    """Write a picture with a panel for each probe.

    Each point is a strength, labelled with its alpha; lines across it are 95% intervals.

    Args:
        points: from `sweep`, with labelled rows and at least one probe.
        path: a .pdf, .png or .svg file.
        title: what was rescaled.

    Raises:
        UsageError: the file cannot be written, or there is nothing to draw.
    """
    check_plot_path(path)
    names = [result.name for result in points[0].forgetting] if points else []
    if not names or points[0].learning is None:
        message = "A plot of accuracy against forgetting needs labelled rows and a probe."
        raise UsageError(message)
    figure = _figure(len(names))
    figure.suptitle(title)
    for name, axes in zip(names, figure.axes, strict=True):
        _draw(axes, points, name)
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
        "each point is a strength, labelled with its alpha; grey: 95% intervals over rows or documents, of this one model",
        fontsize="small",
    )
