"""The labels of a table, by kind of task, checked one by one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from peftune.data.cells import is_missing, label_text
from peftune.data.label_cells import (
    NUMBER,
    class_ids,
    label_spellings,
    labels_of_cells,
    labels_of_lists,
    listed,
    named,
    numbers,
)
from peftune.data.rows import Labels, Rows
from peftune.data.split_tables import SplitTable
from peftune.data.tables import column
from peftune.errors import DataError
from peftune.recipe.data import why_unclear
from peftune.recipe.task import TaskName


def names_of_labels(
    kind: TaskName,
    table: SplitTable,
    label_column: str | Sequence[str],
    given: Sequence[str] | None,
) -> tuple[str, ...]:
    """Say what the labels are called, in the order of their ids.

    Args:
        kind: the task.
        table: the training rows.
        label_column: column of the labels, or those of multi-label.
        given: the names that the recipe fixes.

    Returns:
        The names given, those of the data set, or the different values in their order; the column
        of a regression; nothing for language modeling.

    Raises:
        DataError: there are fewer than two, the recipe names others than the columns, or one cannot
            be told by reading it.
    """
    names = _names(kind, table, label_column, given)
    # A row with an empty one has no label: it is told by its number, or left out.
    if unclear := why_unclear([name for name in names if name]):
        message = f"{table.name}: {unclear}, so no artifact could be saved with it. Rename it in the file."
        raise DataError(message)
    return names


def _names(
    kind: TaskName,
    table: SplitTable,
    label_column: str | Sequence[str],
    given: Sequence[str] | None,
) -> tuple[str, ...]:
    if kind == "language-modeling":
        return ()
    if kind == "regression":
        return (str(label_column),)
    if not isinstance(label_column, str):
        if given is not None and sorted(given) != sorted(label_column):
            message = f"data.labels must name the columns of data.label_column, in the order you want: {', '.join(label_column)} (got {', '.join(given)})."
            raise DataError(message)
        return tuple(given or label_column)
    if given is not None:
        return tuple(given)
    if label_column in table.class_names:
        return table.class_names[label_column]
    values = column(table.table, label_column, source=table.name)
    if kind == "multi-label":
        values = [label for cell in values for label in listed(cell) or ()]
    return label_names(values, source=table.name)


def read_labels(
    kind: TaskName, table: SplitTable, label_column: str | Sequence[str], names: Sequence[str]
) -> Callable[[Sequence[int]], Labels]:
    """Return what gives the labels of any rows of a table.

    Args:
        kind: the task.
        table: the rows.
        label_column: column of the labels, or those of multi-label.
        names: label names in the order of their ids.

    Returns:
        A function of row numbers; it raises a `DataError` with the numbers of the rows whose label
        is missing or is none.

    Raises:
        DataError: there is no such column.
    """
    source = table.name
    if kind == "language-modeling":
        return lambda rows: (None,) * len(rows)
    if not isinstance(label_column, str):
        cells = [column(table.table, name, source=source) for name in names]
        return partial(labels_of_cells, cells, names=names, source=source)
    values = column(table.table, label_column, source=source)
    known = table.class_names.get(label_column, ())
    if kind == "regression":
        return partial(numbers, values, source=source)
    if kind == "multi-label":
        return partial(labels_of_lists, values, names=names, known=known, source=source)
    return partial(class_ids, named(values, known, names), names=names, source=source)


def label_names(values: Sequence[Any], *, source: str) -> tuple[str, ...]:
    """Find the label names in a column: its different values, sorted; numbers by value.

    One label that is written in several ways, such as `1` and `1.0`, is one name.

    Raises:
        DataError: there are fewer than two.
    """
    written = [label_text(value) for value in values if not is_missing(value)]
    names = set(label_spellings(written).values())
    numeric = all(NUMBER.fullmatch(name) for name in names)
    ordered = tuple(sorted(names, key=(lambda name: (float(name), name)) if numeric else None))
    if len(ordered) < 2:  # noqa: PLR2004 - one class leaves nothing to learn
        message = f"{source} has {'one label only: ' + repr(ordered[0]) if ordered else 'no labels'}. A classifier needs at least two; check data.label_column."
        raise DataError(message)
    return ordered


def check_classes(rows: Rows, names: Sequence[str], *, kind: TaskName, source: str) -> None:
    """Refuse rows from which nothing can be learned, or on which nothing can be judged.

    Raises:
        DataError: all rows have the same label.
    """
    if kind == "language-modeling":
        return
    if kind == "multi-label":
        varied = any(
            len({cell for cell in cells if not math.isnan(cell)}) > 1
            for cells in zip(*rows.labels, strict=True)
        )
        only = "the same labels"
    else:
        counts = Counter(rows.labels)
        varied = len(counts) > 1
        first = next(iter(counts), None)
        only = f"the label '{names[first] if kind == 'single-label' and first is not None else first}'"
    if not varied:
        least = "values" if kind == "regression" else "classes"
        message = f"{source}: all {len(rows)} rows have {only}. At least two {least} must occur; check the file and data.label_column."
        raise DataError(message)
