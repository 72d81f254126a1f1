"""Rows of a classification task: text and label id, checked one by one."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from peftune.errors import DataError, suggestion

_SHOWN_ROWS = 5
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Rows:
    """Texts with their labels, in a fixed order.

    Args:
        ids: what the source calls each row: its `id` column, or its row number from 0.
        texts: one text a row.
        labels: label ids, indices into the label names.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.texts)

    def take(self, indices: Sequence[int]) -> Rows:
        """Return the rows at these indices, in this order."""
        return Rows(
            tuple(self.ids[index] for index in indices),
            tuple(self.texts[index] for index in indices),
            tuple(self.labels[index] for index in indices),
        )

    def sha256(self) -> str:
        """Hash texts and labels in order."""
        digest = hashlib.sha256()
        for text, label in zip(self.texts, self.labels, strict=True):
            digest.update(f"{label} {len(text)} {text}\n".encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def label_names(values: Sequence[Any], *, source: str) -> tuple[str, ...]:
    """Find the label names in a column: its different values, sorted; numbers by value.

    Raises:
        DataError: there are fewer than two.
    """
    names = {_label_text(value) for value in values if not _is_missing(value)}
    numeric = all(_NUMBER.fullmatch(name) for name in names)
    ordered = tuple(sorted(names, key=(lambda name: (float(name), name)) if numeric else None))
    if len(ordered) < 2:  # noqa: PLR2004 - one class leaves nothing to learn
        message = f"{source} has {'one label only: ' + repr(ordered[0]) if ordered else 'no labels'}. A classifier needs at least two; check data.label_column."
        raise DataError(message)
    return ordered


def check_rows(
    texts: Sequence[Any],
    labels: Sequence[Any],
    *,
    ids: Sequence[Any] | None,
    names: Sequence[str],
    empty_text: str,
    source: str,
) -> tuple[Rows, int]:
    """Turn two columns into rows, or say which rows are wrong.

    Args:
        texts: text column.
        labels: label column, ids or names.
        ids: id column, if there is one.
        names: label names in the order of their ids.
        empty_text: `error`, `drop` or `keep`: what to do with empty or blank texts.
        source: what to call the rows in messages.

    Returns:
        The rows, and how many were dropped.

    Raises:
        DataError: texts or labels are missing or unknown; with the first row numbers.
    """
    empty = {
        index for index, text in enumerate(texts) if _is_missing(text) or not str(text).strip()
    }
    if empty and empty_text == "error":
        message = (
            f"{source}: {_count(len(empty), 'row')} with an empty or missing text, {_numbers(sorted(empty))}. "
            "Mend the rows, or set data.empty_text: drop (leave them out) or keep."
        )
        raise DataError(message)
    kept = [index for index in range(len(texts)) if not (index in empty and empty_text == "drop")]
    if not kept:
        message = f"{source} holds no rows with text."
        raise DataError(message)
    label_ids = _label_ids(labels, kept, names, source)
    row_ids = (
        [str(index) for index in range(len(texts))]
        if ids is None
        else [str(value) for value in ids]
    )
    rows = Rows(
        tuple(row_ids[index] for index in kept),
        tuple("" if _is_missing(texts[index]) else str(texts[index]) for index in kept),
        tuple(label_ids),
    )
    return rows, len(texts) - len(kept)


def _label_ids(
    labels: Sequence[Any], kept: Sequence[int], names: Sequence[str], source: str
) -> list[int]:
    index_of = {name: index for index, name in enumerate(names)}
    if not any(_NUMBER.fullmatch(name) for name in names):
        # Where names are numbers themselves, a number is a name or a mistake, never an id.
        index_of |= {str(index): index for index in range(len(names))}
    missing: list[int] = []
    unknown: dict[str, list[int]] = {}
    ids = []
    for row in kept:
        if _is_missing(labels[row]) or not _label_text(labels[row]).strip():
            missing.append(row)
            continue
        text = _label_text(labels[row])
        label_id = index_of.get(text)
        if label_id is None:
            unknown.setdefault(text, []).append(row)
            continue
        ids.append(label_id)
    if missing:
        message = f"{source}: {_count(len(missing), 'row')} without a label, {_numbers(missing)}. Add the labels or remove the rows."
        raise DataError(message)
    if unknown:
        label, rows = next(iter(unknown.items()))
        more = f" ({len(unknown)} unknown labels in all)" if len(unknown) > 1 else ""
        message = f"{source}: unknown label '{label}' in {_numbers(rows)}{more}. {suggestion(label, names)} Mend data.labels or the rows."
        raise DataError(message)
    return ids


def check_classes(rows: Rows, names: Sequence[str], *, source: str) -> None:
    """Refuse rows in which only one class occurs.

    Raises:
        DataError: all rows have the same label.
    """
    counts = Counter(rows.labels)
    if len(counts) < 2:  # noqa: PLR2004 - one class leaves nothing to tell apart
        only = names[next(iter(counts))] if counts else "none"
        message = f"{source}: all {len(rows)} rows have the label '{only}'. At least two classes must occur; check the file and data.label_column."
        raise DataError(message)


def _label_text(value: object) -> str:
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and value != value)  # noqa: PLR0124 - NaN


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _numbers(rows: Sequence[int]) -> str:
    """Name rows by number, from 0 for the first row after the header."""
    shown = ", ".join(str(row) for row in rows[:_SHOWN_ROWS])
    more = ", …" if len(rows) > _SHOWN_ROWS else ""
    return f"row {shown}" if len(rows) == 1 else f"rows {shown}{more}"
