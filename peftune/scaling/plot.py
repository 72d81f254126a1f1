"""Draw the error by the number of training rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from peftune.files.publish import replaced
from peftune.scaling.results import LearningCurve

_GREY = "0.45"


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
            axes.vlines(size.rows, *size.ci95, color=_GREY, linewidth=1)
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
    with replaced(path) as file:
        figure.savefig(file, format="svg", metadata={"Date": None})
