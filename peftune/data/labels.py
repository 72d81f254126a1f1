"""Read the labels of a table, find their names, and encode them for training."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from peftune.data.rows import Labels, Rows, counted, is_missing, label_text, numbered
from peftune.data.split_tables import SplitTable
from peftune.data.tables import column
from peftune.errors import DataError, suggestion
from peftune.recipe.data import why_unclear
from peftune.recipe.task_type import TaskType

NUMBER = re.compile(r"-?\d+(\.\d+)?")
_WHOLE = re.compile(r"(-?\d+)\.0*")
_TRUTH = {"false": "0", "true": "1"}
_YES, _NO = ("1", "true"), ("0", "false")
UNKNOWN = ("", "-1")
"""What a label column of multi-label holds if it is unknown whether the label applies."""


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


def listed(cell: Any) -> list[Any] | None:  # noqa: ANN401 - a cell of any column
    """Return a cell's list, which text formats hold as JSON; None where there is none."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except ValueError:
            return None
    return cell if isinstance(cell, list) else None


def number_of(text: str) -> float:
    """Return the number that a label spells, the label of a regression; nan if it is not finite."""
    try:
        number = float(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


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


LabelTexts = tuple[str, ...] | None
"""The labels of a row as text: one, or those that apply in multi-label; None if there are none."""


@dataclass(frozen=True, slots=True)
class LabelReading:
    """The labels of every row of a table, with what is wrong with them.

    Args:
        texts: the labels of each row, faulty ones as they are written; empty for language modeling.
        faults: what is wrong with the first faulty cell of a row, by row number.
        missing: numbers of the rows without a label.
        unknown: label columns of multi-label that hold neither yes nor no, by row number.
    """

    texts: list[LabelTexts]
    faults: Mapping[int, str] = field(default_factory=dict)
    missing: frozenset[int] = frozenset()
    unknown: Mapping[int, frozenset[str]] = field(default_factory=dict)


def read_labels(
    task: TaskType,
    table: SplitTable,
    label_column: str | Sequence[str],
    given: Sequence[str] | None = None,
) -> LabelReading:
    """Read the labels of every row; ids of the data set are read as their names.

    Args:
        task: the task type.
        table: the rows.
        label_column: column of the labels, or the label columns of multi-label.
        given: the label names that the recipe fixes.

    Raises:
        DataError: there is no such column.
    """
    if not task.has_head:
        return LabelReading([])
    if not isinstance(label_column, str):
        return _read_cells(table, label_column)
    values = column(table.table, label_column, source=table.name)
    known = table.class_names.get(label_column, ())
    if task.many_labels:
        lists = [listed(value) for value in values]
        texts = [
            _text_of(value)
            if labels is None
            else tuple(map(label_text, named(labels, known, given or known)))
            for value, labels in zip(values, lists, strict=True)
        ]
        missing = frozenset(row for row, labels in enumerate(lists) if labels is None)
        return LabelReading(texts, missing=missing)
    if task.one_label:
        values = named(values, known, given or known)
    texts = [_text_of(value) for value in values]
    missing = frozenset(row for row, text in enumerate(texts) if text is None)
    faults = {
        row: f"has '{values[row]}' as its label, which is not a finite number. Check data.label_column."
        for row, text in enumerate(texts)
        if task.numeric and text is not None and math.isnan(number_of(text[0]))
    }
    return LabelReading(texts, faults, missing)


def _text_of(value: object) -> LabelTexts:
    blank = is_missing(value) or not str(value).strip()
    return None if blank else (label_text(value),)


def _read_cells(table: SplitTable, names: Sequence[str]) -> LabelReading:
    """Read one column a label: 1 or true, 0 or false, empty or -1 if it is unknown."""
    columns = [column(table.table, name, source=table.name) for name in names]
    texts: list[LabelTexts] = []
    faults: dict[int, str] = {}
    unknown: dict[int, frozenset[str]] = {}
    for row, cells in enumerate(zip(*columns, strict=True)):
        applying = []
        for name, cell in zip(names, cells, strict=True):
            text = "" if is_missing(cell) else label_key(label_text(cell).strip())
            if text in UNKNOWN:
                unknown[row] = unknown.get(row, frozenset()) | {name}
            elif text in _YES:
                applying.append(name)
            elif text not in _NO:
                applying.append(f"{name}={cell}")
                faults.setdefault(
                    row,
                    f"has '{cell}' in '{name}'. A label column of multi-label holds 0 or 1, or nothing or -1 if it is unknown.",
                )
        texts.append(None if len(unknown.get(row, ())) == len(names) else tuple(applying))
    missing = frozenset(row for row, text in enumerate(texts) if text is None)
    return LabelReading(texts, faults, missing, unknown)


def encode_labels(
    task: TaskType, table: SplitTable, label_column: str | Sequence[str], names: Sequence[str]
) -> Callable[[Sequence[int]], Labels]:
    """Return a function that encodes the labels of any rows of a table as training needs them.

    Args:
        task: the task type.
        table: the rows.
        label_column: column of the labels, or the label columns of multi-label.
        names: label names in the order of their ids.

    Returns:
        A function of row numbers; it raises a `DataError` with the numbers of the rows whose label
        is missing, faulty or unknown.

    Raises:
        DataError: there is no such column.
    """
    if not task.has_head:
        return lambda rows: (None,) * len(rows)
    columns = label_column if isinstance(label_column, str) else names
    reading = read_labels(task, table, columns, None if task.numeric else names)
    return partial(_encode, task, reading, names=names, source=table.name)


def _encode(
    task: TaskType,
    reading: LabelReading,
    rows: Sequence[int],
    *,
    names: Sequence[str],
    source: str,
) -> Labels:
    for row in rows:
        if row in reading.faults:
            message = f"{source}: row {row} {reading.faults[row]}"
            raise DataError(message)
    missing = [row for row in rows if row in reading.missing]
    if missing:
        message = f"{source}: {counted(len(missing), 'row')} without a label, {numbered(missing)}. Add the labels or remove the rows."
        raise DataError(message)
    texts = [reading.texts[row] or () for row in rows]
    if task.numeric:
        return tuple(number_of(number) for (number,) in texts)
    find = label_finder(names)
    ids = [[find(text) for text in row] for row in texts]
    unknown: dict[str, list[int]] = {}
    for row, labels, found in zip(rows, texts, ids, strict=True):
        for text in dict.fromkeys(
            text for text, index in zip(labels, found, strict=True) if index is None
        ):
            unknown.setdefault(text, []).append(row)
    if unknown:
        label, where = next(iter(unknown.items()))
        more = f" ({len(unknown)} unknown labels in all)" if len(unknown) > 1 else ""
        message = f"{source}: unknown label '{label}' in {numbered(where)}{more}. {suggestion(label, names)} Mend data.labels or the rows."
        raise DataError(message)
    if task.one_label:
        return tuple(index for (index,) in ids)
    return tuple(
        tuple(
            math.nan if name in reading.unknown.get(row, ()) else float(index in applying)
            for index, name in enumerate(names)
        )
        for row, applying in zip(rows, map(set, ids), strict=True)
    )


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
    """Refuse rows with one class only: nothing can be learned from them or scored on them.

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
