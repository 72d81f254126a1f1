"""The labels of a table, by kind of task, checked one by one."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from peftune.data.cells import counted, is_missing, label_text, numbered
from peftune.data.rows import Labels, Rows
from peftune.data.split_tables import SplitTable
from peftune.data.tables import column
from peftune.errors import DataError, suggestion
from peftune.recipe.data import why_unclear
from peftune.recipe.task_type import TaskType

NUMBER = re.compile(r"-?\d+(\.\d+)?")
_WHOLE = re.compile(r"(-?\d+)\.0*")
_TRUTH = {"false": "0", "true": "1"}
_CELLS = {"0": 0.0, "false": 0.0, "1": 1.0, "true": 1.0}
_NOT_KNOWN = math.nan
UNKNOWN = ("", "-1")
"""What a label column of multi-label holds where nobody knows whether the label applies."""


def label_key(label: str) -> str:
    """Return what a label is compared by, so that every kind of file says the same.

    A column of whole numbers with a gap is written `1.0` by pandas and `1` by everybody else, and
    a truth value is `True` in a csv of pandas and `true` in JSON.
    """
    whole = _WHOLE.fullmatch(label)
    number = whole[1] if whole else label
    if number == "-0":
        return "0"
    lower = number.lower()
    return lower if lower in _TRUTH else number


def label_finder(names: Sequence[str], *, ids: bool = True) -> Callable[[str], int | None]:
    """Return what finds the id of a label's text, or None where it is not a label.

    A name is found as it is written, then by its `label_key`. Where the names are 0 and 1, a truth
    value is one of them.

    Args:
        names: label names in the order of their ids.
        ids: find a label by its id too, unless names are numbers themselves: then a number is a
            name or a mistake, and never an id. Nor is it one of the names true and false in this
            order: 1 may then be meant as true.
    """
    keys = [label_key(name) for name in names]
    times = Counter(keys)
    by_key = {key: index for index, key in enumerate(keys) if times[key] == 1}
    if set(keys) == set(_TRUTH.values()):
        by_key |= {word: keys.index(number) for word, number in _TRUTH.items()}
    if ids and keys != ["true", "false"] and not any(NUMBER.fullmatch(name) for name in names):
        by_key |= {str(index): index for index in range(len(names))}
    by_name = {name: index for index, name in enumerate(names)}

    def find(text: str) -> int | None:
        index = by_name.get(text)
        return by_key.get(label_key(text)) if index is None else index

    return find


def label_spellings(labels: Sequence[str]) -> dict[str, str]:
    """Return the name of every different label in a column, by how it is written.

    Labels keep their spelling, unless one is written in several ways that mean the same: then all
    are named by their `label_key`.
    """
    keys = {label: label_key(label) for label in labels}
    shared = {key for key, times in Counter(keys.values()).items() if times > 1}
    for alike in (NUMBER.fullmatch, _TRUTH.get):
        if any(map(alike, shared)):
            shared |= set(filter(alike, keys.values()))
    return {label: key if key in shared else label for label, key in keys.items()}


def class_ids(
    values: Sequence[Any], rows: Sequence[int], *, names: Sequence[str], source: str
) -> tuple[int, ...]:
    """Return the label id of each row.

    Args:
        values: label column, ids or names.
        rows: which rows.
        names: label names in the order of their ids.
        source: what to call the rows in messages.

    Raises:
        DataError: labels are missing or unknown; with the first row numbers.
    """
    find = label_finder(names)
    missing: list[int] = []
    unknown: dict[str, list[int]] = {}
    ids = []
    for row in rows:
        text = "" if is_missing(values[row]) else label_text(values[row])
        if not text.strip():
            missing.append(row)
        elif (index := find(text)) is not None:
            ids.append(index)
        else:
            unknown.setdefault(text, []).append(row)
    _refuse_missing(missing, source)
    _refuse_unknown(unknown, names, source)
    return tuple(ids)


def labels_of_cells(
    columns: Sequence[Sequence[Any]], rows: Sequence[int], *, names: Sequence[str], source: str
) -> tuple[tuple[float, ...], ...]:
    """Read one column a label: 1 or true, 0 or false, nothing or -1 where it is not known."""
    found, missing = [], []
    for row in rows:
        cells = []
        for name, values in zip(names, columns, strict=True):
            text = "" if is_missing(values[row]) else label_key(label_text(values[row]).strip())
            if text not in UNKNOWN and text not in _CELLS:
                message = f"{source}: row {row} has '{values[row]}' in '{name}'. A label column of multi-label holds 0 or 1, or nothing or -1 where it is not known."
                raise DataError(message)
            cells.append(_CELLS.get(text, _NOT_KNOWN))
        if all(map(math.isnan, cells)):
            missing.append(row)
        found.append(tuple(cells))
    _refuse_missing(missing, source)
    return tuple(found)


def labels_of_lists(
    values: Sequence[Any],
    rows: Sequence[int],
    *,
    names: Sequence[str],
    known: Sequence[str],
    source: str,
) -> tuple[tuple[float, ...], ...]:
    """Read lists of labels, by name or id; an empty list says that none applies."""
    find = label_finder(names)
    found, missing = [], []
    unknown: dict[str, list[int]] = {}
    for row in rows:
        labels = listed(values[row])
        if labels is None:
            missing.append(row)
            continue
        texts = [label_text(label) for label in named(labels, known, names)]
        ids = {text: find(text) for text in texts}
        for text, index in ids.items():
            if index is None:
                unknown.setdefault(text, []).append(row)
        said = set(ids.values())
        found.append(tuple(float(index in said) for index in range(len(names))))
    _refuse_missing(missing, source)
    _refuse_unknown(unknown, names, source)
    return tuple(found)


def listed(cell: Any) -> list[Any] | None:  # noqa: ANN401 - a cell of any column
    """Return a cell's list, which text formats hold as JSON; None where there is none."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            return None
    return cell if isinstance(cell, list) else None


def numbers(values: Sequence[Any], rows: Sequence[int], *, source: str) -> tuple[float, ...]:
    """Read finite numbers, the labels of a regression."""
    found, missing = [], []
    for row in rows:
        text = "" if is_missing(values[row]) else str(values[row]).strip()
        if not text:
            missing.append(row)
            continue
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            message = f"{source}: row {row} has '{values[row]}' as its label, which is no number. A regression learns finite numbers; check data.label_column."
            raise DataError(message)
        found.append(number)
    _refuse_missing(missing, source)
    return tuple(found)


def named(labels: list[Any], known: Sequence[str], names: Sequence[str]) -> list[Any]:
    """Turn the ids of a ClassLabel feature into its names, unless the recipe renames them."""
    if not set(known) <= set(names):
        return labels
    return [
        known[label]
        if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(known)
        else label
        for label in labels
    ]


def _refuse_missing(rows: Sequence[int], source: str) -> None:
    if rows:
        message = f"{source}: {counted(len(rows), 'row')} without a label, {numbered(rows)}. Add the labels or remove the rows."
        raise DataError(message)


def _refuse_unknown(unknown: dict[str, list[int]], names: Sequence[str], source: str) -> None:
    if unknown:
        label, rows = next(iter(unknown.items()))
        more = f" ({len(unknown)} unknown labels in all)" if len(unknown) > 1 else ""
        message = f"{source}: unknown label '{label}' in {numbered(rows)}{more}. {suggestion(label, names)} Mend data.labels or the rows."
        raise DataError(message)


def names_of_labels(
    task: TaskType,
    table: SplitTable,
    label_column: str | Sequence[str],
    given: Sequence[str] | None,
) -> tuple[str, ...]:
    """Say what the labels are called, in the order of their ids.

    Args:
        task: the task type.
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
    names = _names(task, table, label_column, given)
    # A row with an empty one has no label: it is told by its number, or left out.
    if unclear := why_unclear([name for name in names if name]):
        message = f"{table.name}: {unclear}, so no artifact could be saved with it. Rename it in the file."
        raise DataError(message)
    return names


def _names(
    task: TaskType,
    table: SplitTable,
    label_column: str | Sequence[str],
    given: Sequence[str] | None,
) -> tuple[str, ...]:
    if not task.has_head:
        return ()
    if task.numeric:
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
    if task.many_labels:
        values = [label for cell in values for label in listed(cell) or ()]
    return label_names(values, source=table.name)


def read_labels(
    task: TaskType, table: SplitTable, label_column: str | Sequence[str], names: Sequence[str]
) -> Callable[[Sequence[int]], Labels]:
    """Return what gives the labels of any rows of a table.

    Args:
        task: the task type.
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
    if not task.has_head:
        return lambda rows: (None,) * len(rows)
    if not isinstance(label_column, str):
        cells = [column(table.table, name, source=source) for name in names]
        return partial(labels_of_cells, cells, names=names, source=source)
    values = column(table.table, label_column, source=source)
    known = table.class_names.get(label_column, ())
    if task.numeric:
        return partial(numbers, values, source=source)
    if task.many_labels:
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


def check_classes(rows: Rows, names: Sequence[str], *, task: TaskType, source: str) -> None:
    """Refuse rows from which nothing can be learned, or on which nothing can be judged.

    Raises:
        DataError: all rows have the same label.
    """
    if not task.has_head:
        return
    if task.many_labels:
        varied = any(
            len({cell for cell in cells if not math.isnan(cell)}) > 1
            for cells in zip(*rows.labels, strict=True)
        )
        only = "the same labels"
    else:
        counts = Counter(rows.labels)
        varied = len(counts) > 1
        first = next(iter(counts), None)
        only = f"the label '{names[first] if task.one_label and first is not None else first}'"
    if not varied:
        least = "values" if task.numeric else "classes"
        message = f"{source}: all {len(rows)} rows have {only}. At least two {least} must occur; check the file and data.label_column."
        raise DataError(message)


LabelTexts = tuple[str, ...] | None
"""The labels of a row: one, or those that apply in multi-label; None where nothing is said."""

_YES, _NO = ("1", "true"), ("0", "false")


def label_texts(
    task: TaskType,
    table: SplitTable,
    label_column: str | Sequence[str],
    given: Sequence[str] | None = None,
) -> list[LabelTexts]:
    """Return the labels of every row, ids of the data set by their names, faulty ones as they are.

    Args:
        task: the task type.
        table: the rows.
        label_column: column of the labels, or those of multi-label.
        given: the names that the recipe fixes.

    Returns:
        One a row; nothing for language modeling.

    Raises:
        DataError: there is no such column.
    """
    if not task.has_head:
        return []
    if not isinstance(label_column, str):
        columns = [column(table.table, name, source=table.name) for name in label_column]
        return [_said(label_column, cells) for cells in zip(*columns, strict=True)]
    values = column(table.table, label_column, source=table.name)
    known = table.class_names.get(label_column, ())
    if task.many_labels:
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
