"""Read csv and tsv, row by row, every cell as text."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from peftune.data.growing_table import GrowingTable
from peftune.data.utf8 import open_utf8
from peftune.errors import DataError

_LONGEST_CELL = 2**27
"""Characters; a cell beyond it is more likely a quote that nobody closed."""

_BATCH = 2**20
"""Characters that are read before they become a part of the table."""

_SHOWN = 60

_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
"""What files are delimited by, in words."""

_FAULTS = {
    "unexpected end of data": "a quote is opened in this row and never closed. Close it, or write a quote that is part of the text twice, in a cell in quotes.",
    "expected after": "text follows a closing quote. Write a quote inside of a cell in quotes twice.",
    "field larger": f"a cell has more than {_LONGEST_CELL} characters. Is a quote never closed there?",
}
"""What the csv module says, and what peftune says."""


def read_delimited(path: Path, delimiter: str) -> pa.Table:
    """Read a file whose first row names the columns; blank lines are no rows.

    A cell in quotes may hold delimiters, line ends and, written twice, quotes. Line numbers in
    messages count from 1 and are those of an editor: a row may take several lines.

    Args:
        path: the file, UTF-8.
        delimiter: what stands between two cells.

    Raises:
        DataError: a row has more or fewer cells than there are columns, or quotes that do not
            match, with its line; or another delimiter stands in the first line.
    """
    table = GrowingTable()
    with open_utf8(path, newline="") as file, _large_cells():
        rows = _rows(file, delimiter, path)
        _, names = next(rows, (1, []))
        _check_header(names, path, delimiter)
        table.append(_batch([], names))
        for batch in _batches(rows, names, path):
            table.append(batch)
    return table.table()


def _rows(file: TextIO, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Give every row with the number of its first line."""
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            known = [said for part, said in _FAULTS.items() if part in str(error)]
            message = f"'{path}' line {line}: {known[0] if known else str(error)}"
            raise DataError(message) from error
        if row is None:
            return
        if row or line == 1:
            yield line, row


def _check_header(names: list[str], path: Path, delimiter: str) -> None:
    if not any(name.strip() for name in names):
        message = f"'{path}' is empty; its first line must name the columns."
        raise DataError(message)
    if any("\0" in name for name in names):
        message = f"'{path}' has zero bytes in its first line. It looks like UTF-16. Save the file as UTF-8."
        raise DataError(message)
    if len(names) == 1 and (other := _other_delimiter(names[0], delimiter)):
        asked = _DELIMITERS.get(delimiter, repr(delimiter))
        message = f"'{path}' has one column with {asked} between two cells, and several with {_DELIMITERS[other]}: {_cut(names[0])!r}. Set data.delimiter: {json.dumps(other)} in the recipe, or save the file with {asked}."
        raise DataError(message)


def _other_delimiter(header: str, delimiter: str) -> str | None:
    """Return what else may stand between the names of the columns, if they are several then."""
    for other in sorted(_DELIMITERS, key=header.count, reverse=True):
        names = [name.strip() for name in header.split(other)]
        if other != delimiter and len(names) > 1 and all(names) and len(set(names)) == len(names):
            return other
    return None


def _batches(
    rows: Iterator[tuple[int, list[str]]], names: list[str], path: Path
) -> Iterator[pa.RecordBatch]:
    batch: list[list[str]] = []
    characters = 0
    for line, row in rows:
        if len(row) != len(names):
            raise DataError(_ragged(line, row, names, path))
        batch.append(row)
        characters += sum(map(len, row))
        if characters > _BATCH:
            yield _batch(batch, names)
            batch, characters = [], 0
    if batch:
        yield _batch(batch, names)


def _batch(rows: list[list[str]], names: list[str]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True) if rows else [[] for _ in names]
    return pa.record_batch([pa.array(cells, pa.string()) for cells in columns], names=names)


def _ragged(line: int, row: list[str], names: list[str], path: Path) -> str:
    shown = _cut(" | ".join(row))
    return f"'{path}' line {line}: {len(row)} cells, but {len(names)} columns ({', '.join(names)}): {shown!r}. Put a cell that holds a delimiter or a line end in quotes."


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@contextmanager
def _large_cells() -> Iterator[None]:
    """Allow long cells while a file is read; the csv module keeps one limit for the whole process."""
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        yield
    finally:
        csv.field_size_limit(before)
