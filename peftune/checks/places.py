"""Rows in words, and rows gathered by what they have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from peftune.checks.facts import DataFacts, SplitFacts
from peftune.data.cells import counted, numbered

_SHOWN = 60


def placed(rows: Mapping[str, Sequence[int]]) -> str:
    """Name rows with their split: `train rows 3, 5; test row 7`."""
    return "; ".join(f"{split} {numbered(found)}" for split, found in rows.items() if found)


def rows_in_words(rows: Mapping[str, Sequence[int]]) -> str:
    """Count rows and name the first: `2 rows (train rows 3, 5)`."""
    return f"{counted(sum(map(len, rows.values())), 'row')} ({placed(rows)})"


def rows_where(
    facts: DataFacts, holds: Callable[[str], object], *, blank: bool = False
) -> dict[str, list[int]]:
    """Find the rows whose text is so.

    Args:
        facts: the data.
        holds: says of a text whether it is so.
        blank: look at rows without text too, those that cleaning left out apart.
    """
    return {
        name: [row for row, text in _texts(split, blank=blank) if holds(text)]
        for name, split in facts.splits.items()
    }


def _texts(split: SplitFacts, *, blank: bool) -> Iterable[tuple[int, str]]:
    return enumerate(split.texts) if blank else split.rows()


def some(rows: Mapping[str, Sequence[int]]) -> bool:
    """Say whether there are any rows."""
    return any(map(len, rows.values()))


def quoted_start(text: str) -> str:
    """Return the start of a text in quotes, on one line."""
    line = " ".join(text.split())
    return f"'{line if len(line) <= _SHOWN else line[: _SHOWN - 1] + '…'}'"
