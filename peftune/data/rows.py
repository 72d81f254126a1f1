"""Rows of a task: text and label, checked one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from peftune.errors import DataError

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


Labels = tuple[Any, ...]
"""One a row: an id, a number, a tuple of 0.0 and 1.0 with nan where it is not known, or None."""

NOT_KNOWN = -100.0
"""Stands for a label that is not known; Trainer leaves it out of its counts of items."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts with their labels, in a fixed order.

    Args:
        ids: what the source calls each row: its `id` column, or its row number from 0.
        texts: one text a row; those of a file are read when they are asked for.
        labels: one a row. Single-label: an id, the index into the label names. Multi-label: a
            tuple with 1.0 or 0.0 for each label, nan where it is not known. Regression: a float.
            Language modeling: None.
        groups: what rows are held out by together; None where the recipe names no column for it.
    """

    ids: Sequence[str]
    texts: Sequence[str]
    labels: Labels
    groups: Sequence[str] | None = None

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.texts)

    def take(self, indices: Sequence[int]) -> Rows:
        """Return the rows at these indices, in this order."""
        return Rows(
            taken(self.ids, indices),
            taken(self.texts, indices),
            tuple(self.labels[index] for index in indices),
            None if self.groups is None else taken(self.groups, indices),
        )

    def sha256(self) -> str:
        """Hash texts and labels in order."""
        digest = hashlib.sha256()
        for text, label in zip(self.texts, self.labels, strict=True):
            digest.update(f"{label} {len(text)} {text}\n".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def check_rows(
    texts: Sequence[str],
    labels: Callable[[Sequence[int]], Labels],
    *,
    ids: Sequence[str] | None,
    groups: Sequence[str] | None = None,
    empty_text: str,
    source: str,
    left_out: frozenset[int] = frozenset(),
) -> tuple[Rows, int]:
    """Put texts and labels together, or say which rows are wrong.

    Args:
        texts: one a row; a missing one is empty.
        labels: gives the labels of the rows with these numbers, from `encode_labels`.
        ids: what the source calls the rows, if it does.
        groups: what they are held out by together, if anything.
        empty_text: `error`, `drop` or `keep`: what to do with empty or blank texts.
        source: what to call the rows in messages.
        left_out: numbers of the rows that cleaning leaves out.

    Returns:
        The rows, and how many were dropped for an empty text.

    Raises:
        DataError: texts or labels are missing or unknown; with the first row numbers.
    """
    empty = {row for row, text in enumerate(texts) if not text.strip()} - left_out
    if empty and empty_text == "error":
        message = (
            f"{source}: {counted(len(empty), 'row')} with an empty or missing text, {numbered(sorted(empty))}. "
            "Mend the rows, or set data.empty_text: drop (leave them out) or keep."
        )
        raise DataError(message)
    dropped = empty if empty_text == "drop" else frozenset()
    kept = [row for row in range(len(texts)) if row not in dropped and row not in left_out]
    if not kept:
        message = f"{source} holds no rows with text."
        raise DataError(message)
    rows = Rows(
        taken(row_numbers(len(texts)) if ids is None else ids, kept),
        taken(texts, kept),
        labels(kept),
        None if groups is None else taken(groups, kept),
    )
    return rows, len(dropped)
