"""A learning curve as a person reads it."""

from __future__ import annotations

from collections.abc import Sequence

from peftune.scaling.results import LearningCurve, Size

LEGEND = "Error: share of wrong validation rows; no test row is read. Brackets: 95% intervals; in parentheses each of two seeds, which have none. Gain: less error than with the rows of the line above."


def curve_rows(curve: LearningCurve) -> list[dict[str, str]]:
    """One row a number of training rows."""
    return [
        {
            "rows": str(size.rows),
            "error": _shown(size.error, size.ci95, ".3f") + _each(size),
            "gain": _shown(size.gain, size.gain_ci95, "+.3f"),
            "seconds": "-" if size.seconds is None else f"{size.seconds:.0f}",
        }
        for size in curve.sizes
    ]


def _each(size: Size) -> str:
    """Give the errors of two seeds, of which no interval is made."""
    two = len(size.errors) > 1 and size.ci95 is None
    return f" ({', '.join(f'{error:.3f}' for error in size.errors)})" if two else ""


def _shown(value: float | None, interval: Sequence[float] | None, form: str) -> str:
    if value is None:
        return "-"
    around = f" [{interval[0]:{form}}, {interval[1]:{form}}]" if interval else ""
    return f"{value:{form}}{around}"
