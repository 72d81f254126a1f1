"""The labels of rows as text, before anything is asked of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftune.data.cells import is_missing, label_text
from peftune.data.label_cells import UNKNOWN, label_key, listed, named
from peftune.data.split_tables import SplitTable
from peftune.data.tables import column
from peftune.recipe.task import TaskName

LabelTexts = tuple[str, ...] | None
"""The labels of a row: one, or those that apply in multi-label; None where nothing is said."""

_YES, _NO = ("1", "true"), ("0", "false")


def label_texts(
    kind: TaskName,
    table: SplitTable,
    label_column: str | Sequence[str],
    given: Sequence[str] | None = None,
) -> list[LabelTexts]:
    """Return the labels of every row, ids of the data set by their names, faulty ones as they are.

    Args:
        kind: the task.
        table: the rows.
        label_column: column of the labels, or those of multi-label.
        given: the names that the recipe fixes.

    Returns:
        One a row; nothing for language modeling.

    Raises:
        DataError: there is no such column.
    """
    if kind == "language-modeling":
        return []
    if not isinstance(label_column, str):
        columns = [column(table.table, name, source=table.name) for name in label_column]
        return [_said(label_column, cells) for cells in zip(*columns, strict=True)]
    values = column(table.table, label_column, source=table.name)
    known = table.class_names.get(label_column, ())
    if kind == "multi-label":
        return [_of_list(cell, known, given or known) for cell in values]
    values = named(values, known, given or known)
    return [None if _blank(value) else (label_text(value),) for value in values]


def _said(names: Sequence[str], cells: Sequence[Any]) -> LabelTexts:
    """Name the columns that say yes; one that says neither yes nor no is named with what it says."""
    texts = ["" if is_missing(cell) else label_key(label_text(cell).strip()) for cell in cells]
    if all(text in UNKNOWN for text in texts):
        return None
    found = []
    for name, cell, text in zip(names, cells, texts, strict=True):
        if text in _YES:
            found.append(name)
        elif text not in (*_NO, *UNKNOWN):
            found.append(f"{name}={cell}")
    return tuple(found)


def _of_list(cell: Any, known: Sequence[str], given: Sequence[str]) -> LabelTexts:  # noqa: ANN401 - a cell of any column
    labels = listed(cell)
    if labels is None:
        return None if _blank(cell) else (str(cell),)
    return tuple(label_text(label) for label in named(labels, known, given))


def _blank(value: object) -> bool:
    return is_missing(value) or not str(value).strip()
