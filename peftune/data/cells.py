"""What a cell of a table says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

_SHOWN_ROWS = 5


def is_missing(value: object) -> bool:
    """Say whether a cell holds nothing: None, or a float that is no number."""
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN


def cell_text(cell: pa.Scalar) -> str:
    """Return a cell's text; nothing is the empty text."""
    value: Any = cell.as_py()
    return "" if is_missing(value) else str(value)


def label_text(value: object) -> str:
    """Return a label as text; a whole number has no point."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def counted(number: int, noun: str) -> str:
    """Count things in words: `1 row`, `2 rows`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def numbered(rows: Sequence[int]) -> str:
    """Name rows by number, from 0 for the first row after the header."""
    shown = ", ".join(str(row) for row in rows[:_SHOWN_ROWS])
    more = ", …" if len(rows) > _SHOWN_ROWS else ""
    return f"row {shown}" if len(rows) == 1 else f"rows {shown}{more}"
