"""Rows of a task: text and label, checked one by one."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from peftune.data.cells import counted, numbered, row_numbers, taken
from peftune.errors import DataError

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
