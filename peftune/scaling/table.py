"""A learning curve as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence

from peftune.scaling.results import LearningCurve

LEGEND = "Error: share of wrong validation rows; no test row is read. Brackets: 95% intervals. Gain: less error than with the rows of the line above."


def curve_rows(curve: LearningCurve) -> list[dict[str, str]]:
    """One row a number of training rows."""
    return [
        {
            "rows": str(size.rows),
            "error": _shown(size.error, size.ci95, ".3f"),
            "gain": _shown(size.gain, size.gain_ci95, "+.3f"),
            "seconds": "-" if size.seconds is None else f"{size.seconds:.0f}",
        }
        for size in curve.sizes
    ]


def _shown(value: float | None, interval: Sequence[float] | None, form: str) -> str:
    if value is None:
        return "-"
    around = f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else ""
    return f"{value:{form}}{around}"
