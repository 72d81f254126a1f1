"""What the cells of a label column say: ids, sets of labels, or numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

from peftune.data.cells import counted, is_missing, label_text, numbered
from peftune.errors import DataError, suggestion

NUMBER = re.compile(r"-?\d+(\.\d+)?")
_CELLS = {"0": 0.0, "0.0": 0.0, "false": 0.0, "1": 1.0, "1.0": 1.0, "true": 1.0}
_NOT_KNOWN = math.nan


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
    index_of = _ids_of(names)
    missing: list[int] = []
    unknown: dict[str, list[int]] = {}
    ids = []
    for row in rows:
        text = "" if is_missing(values[row]) else label_text(values[row])
        if not text.strip():
            missing.append(row)
        elif text in index_of:
            ids.append(index_of[text])
        else:
            unknown.setdefault(text, []).append(row)
    _refuse_missing(missing, source)
    _refuse_unknown(unknown, names, source)
    return tuple(ids)


def labels_of_cells(
    columns: Sequence[Sequence[Any]], rows: Sequence[int], *, names: Sequence[str], source: str
) -> tuple[tuple[float, ...], ...]:
    """Read one column a label: 1 or true, 0 or false, or nothing where it is not known."""
    found, missing = [], []
    for row in rows:
        cells = []
        for name, values in zip(names, columns, strict=True):
            text = "" if is_missing(values[row]) else label_text(values[row]).strip().lower()
            if text and text not in _CELLS:
                message = f"{source}: row {row} has '{values[row]}' in '{name}'. A label column of multi-label holds 0 or 1, or nothing where it is not known."
                raise DataError(message)
            cells.append(_CELLS[text] if text else _NOT_KNOWN)
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
    index_of = _ids_of(names)
    found, missing = [], []
    unknown: dict[str, list[int]] = {}
    for row in rows:
        labels = listed(values[row])
        if labels is None:
            missing.append(row)
            continue
        texts = [label_text(label) for label in named(labels, known, names)]
        for text in texts:
            if text not in index_of:
                unknown.setdefault(text, []).append(row)
        said = {index_of[text] for text in texts if text in index_of}
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


def _ids_of(names: Sequence[str]) -> dict[str, int]:
    index_of = {name: index for index, name in enumerate(names)}
    if not any(NUMBER.fullmatch(name) for name in names):
        # Where names are numbers themselves, a number is a name or a mistake, never an id.
        index_of |= {str(index): index for index in range(len(names))}
    return index_of


def named(labels: list[Any], known: Sequence[str], names: Sequence[str]) -> list[Any]:
    """Turn the ids of a ClassLabel feature into its names, unless the recipe renames them."""
    if not set(known) <= set(names):
        return labels
    return [
        known[label] if isinstance(label, int) and 0 <= label < len(known) else label
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
