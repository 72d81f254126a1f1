"""Rows in words, and rows gathered by what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from peftune.checks.facts import DataFacts
from peftune.data.cells import counted, numbered

_SHOWN = 60


def placed(rows: Mapping[str, Sequence[int]]) -> str:
    """Name rows with their split: `train rows 3, 5; test row 7`."""
    return "; ".join(f"{split} {numbered(found)}" for split, found in rows.items() if found)


def rows_in_words(rows: Mapping[str, Sequence[int]]) -> str:
    """Count rows and name the first: `2 rows (train rows 3, 5)`."""
    return f"{counted(sum(map(len, rows.values())), 'row')} ({placed(rows)})"


def rows_where(facts: DataFacts, holds: Callable[[str], object]) -> dict[str, list[int]]:
    """Find the rows whose text is so; rows without text are not asked."""
    return {
        name: [row for row, text in split.rows() if holds(text)]
        for name, split in facts.splits.items()
    }


def some(rows: Mapping[str, Sequence[int]]) -> bool:
    """Say whether there are any rows."""
    return any(map(len, rows.values()))


def quoted_start(text: str) -> str:
    """Return the start of a text in quotes, on one line."""
    line = " ".join(text.split())
    return f"'{line if len(line) <= _SHOWN else line[: _SHOWN - 1] + '…'}'"
