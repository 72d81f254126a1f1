"""Cells of a table as texts, and sequences of texts that are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_SHOWN_ROWS = 5


def is_missing(value: object) -> bool:
    """Return whether a cell is missing: None or NaN."""
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN


def cell_text(cell: pa.Scalar) -> str:
    """Return a cell's text; that of a missing cell is empty."""
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


class Strings(Sequence[str]):
    """A sequence that makes each string when it is asked for, so that never all are in memory.

    Args:
        value: makes the string of one row of the source.
        index: rows of the source, in the order of the sequence, (strings,), int64.
    """

    def __init__(self, value: Callable[[int], str], index: NDArray[np.int64]) -> None:
        self._value = value
        self._index = index

    def __len__(self) -> int:
        """Count the strings."""
        return len(self._index)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> list[str]: ...

    def __getitem__(self, place: int | slice) -> str | list[str]:
        """Return one string, or a list of those in a slice."""
        if isinstance(place, slice):
            return [self._value(row) for row in self._index[place].tolist()]
        return self._value(int(self._index[place]))

    def __iter__(self) -> Iterator[str]:
        """Make one string after another."""
        return (self._value(row) for row in self._index.tolist())

    def __eq__(self, other: object) -> bool:
        """Compare with any sequence of strings."""
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(
            mine == its for mine, its in zip(self, other, strict=True)
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Show the first strings."""
        more = ", …" if len(self) > 3 else ""  # noqa: PLR2004 - a glance
        return f"Strings({', '.join(map(repr, self[:3]))}{more})"

    def take(self, indices: Sequence[int]) -> Strings:
        """Return the strings at these places, in this order."""
        return Strings(self._value, self._index[np.asarray(indices, dtype=np.int64)])

    def mapped(self, function: Callable[[str], str]) -> Strings:
        """Return what a function makes of each, when it is asked for."""
        value = self._value
        return Strings(lambda row: function(value(row)), self._index)


def row_numbers(count: int) -> Strings:
    """Name rows by their number, from 0."""
    return Strings(str, np.arange(count))


def taken(values: Sequence[str], indices: Sequence[int]) -> Sequence[str]:
    """Return the strings at these places, lazily where they are lazy."""
    if isinstance(values, Strings):
        return values.take(indices)
    return tuple(values[index] for index in indices)
