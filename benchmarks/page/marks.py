"""Numbers and grids as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

MEBIBYTE = 2**20
NONE = "–"


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a table, the first column to the left and the others to the right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def number(value: float | None) -> str:
    """Write a figure with three digits that count, or whole where it is large."""
    if value is None:
        return NONE
    if abs(value) >= 100:  # noqa: PLR2004 - three digits before the point
        return f"{value:,.0f}"
    return f"{value:.{1 if abs(value) >= 10 else 2}f}"  # noqa: PLR2004 - two digits before it


def times(value: float, ci95: Sequence[float] | None) -> str:
    """Write a ratio with its interval."""
    shown = number(value)
    return f"{shown} [{number(ci95[0])}, {number(ci95[1])}]" if ci95 else shown


def mebibytes(value: float | None) -> str:
    """Write bytes as MiB."""
    return NONE if value is None else number(value / MEBIBYTE)


def milliseconds(seconds: float) -> str:
    """Write seconds as milliseconds."""
    return number(1000 * seconds)


def percent(value: float | None) -> str:
    """Write a share."""
    return NONE if value is None else f"{100 * value:.0f}%"
