"""Read JSON lines row by row, and JSON arrays; every value as text."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from peftune.data.growing_table import GrowingTable
from peftune.data.utf8 import open_utf8, read_utf8
from peftune.errors import DataError

Record = dict[str, Any]

NESTED = b"peftune.nested"
"""Metadata of a column that holds lists or objects: the number of the first such row."""

_LOOKED_AT = 1000
"""Lines, and characters, of a file that are looked at to see what it holds."""

_SHOWN = 5

_BATCH = 1000
"""Rows that are read before they become a part of the table."""

_LARGE_BATCH = 2**20
"""Characters of the file after which fewer rows become a part too."""


def read_json(path: Path) -> pa.Table:
    """Read JSON lines or a JSON array of objects, whichever a file holds, as `datasets` does.

    People give both kinds of file either name. A bracket before the first brace says that it is an
    array; two lines that begin with a brace, that it is lines.

    Raises:
        DataError: it is neither, or an object names a field twice; with its line where it has one.
    """
    with open_utf8(path, newline="\n") as file:
        begins = [
            start for line in itertools.islice(file, _LOOKED_AT) if (start := line.strip()[:1])
        ]
        file.seek(0)
        is_array = _opens_array(file)
    lines = begins[:2] == ["{", "{"] or path.suffix.lower() == ".jsonl"
    return read_json_lines(path) if lines and not is_array else read_json_array(path)


def _opens_array(file: TextIO) -> bool:
    """Say whether an array of objects begins: a bracket, then a brace or its end, blanks aside."""
    start = "".join(file.read(_LOOKED_AT).split())[:2]
    return start in ("[{", "[]")


def read_json_lines(path: Path) -> pa.Table:
    """Read one JSON object a line; blank lines are no rows.

    A string is its text, and a number keeps its characters: `4.50` is no `4.5`. Lists and objects
    are written as JSON writes them. What is null or NaN, or not there, is missing.

    Raises:
        DataError: a line is no JSON object, or names a field twice; with its number.
    """
    with open_utf8(path, newline="\n") as file:
        return _table(_records_of(file, path), path)


def read_json_array(path: Path) -> pa.Table:
    """Read an array of JSON objects, one a row, or one row alone; the whole file is in memory meanwhile.

    Raises:
        DataError: the file is no such array, or an object names a field twice.
    """
    place = f"'{path}'"
    rows = _parsed(read_utf8(path), place)
    if isinstance(rows, dict) and rows:
        if any(isinstance(value, (list, dict)) for value in rows.values()):
            message = f"{place} must hold a JSON array of objects, one a row; it holds one object, with {', '.join(map(repr, list(rows)[:_SHOWN]))}. Write its rows as [{{...}}, {{...}}], or one a line."
            raise DataError(message)
        rows = [rows]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        message = f"{place} must hold a JSON array of objects, one a row."
        raise DataError(message)
    return _table(((0, row) for row in rows), path)


def _records_of(lines: Iterable[str], path: Path) -> Iterator[tuple[int, Record]]:
    """Give the record of every line, and how long the line is."""
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"'{path}' line {number}"
        record = _parsed(line.rstrip("\n"), place)
        if not isinstance(record, dict):
            message = f'{place} is no JSON object; each line must be one row such as {{"text": "...", "label": "..."}}.'
            raise DataError(message)
        yield len(line), record


def _parsed(text: str, place: str) -> Any:  # noqa: ANN401 - what JSON holds
    try:
        return json.loads(
            text,
            parse_float=_Number,
            parse_constant=lambda name: None if name == "NaN" else name,
            object_pairs_hook=_object,
        )
    except (ValueError, RecursionError) as error:
        message = f"{place} is no valid JSON: {error}."
        raise DataError(message) from error


class _Number(float):
    """A number that remembers how it was written."""

    def __init__(self, written: str) -> None:
        self.written = written


def _object(pairs: list[tuple[str, Any]]) -> Record:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        message = f"a row has the field '{twice}' twice"
        raise ValueError(message)
    return record


def _table(records: Iterable[tuple[int, Record]], path: Path) -> pa.Table:
    table, columns = GrowingTable(), _Columns(path)
    batch: list[Record] = []
    characters = 0
    for length, record in records:
        batch.append(record)
        characters += length
        large = len(batch) >= _BATCH or characters > _LARGE_BATCH
        if large and (columns.rows or any(batch)):  # Arrow counts no rows without a column
            table.append(columns.batch(batch))
            batch, characters = [], 0
    if columns.rows or any(batch):
        table.append(columns.batch(batch))
    if not columns.rows:
        message = f"'{path}' holds no rows."
        raise DataError(message)
    return columns.marked(table.table())


class _Columns:
    """The columns of all records so far; a field that some lack is missing in their rows.

    Args:
        path: where the records are from, for messages.
    """

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._path = path
        self._names: dict[str, None] = {}
        self._nested: dict[str, int] = {}

    def batch(self, records: list[Record]) -> pa.RecordBatch:
        """Make columns of text of the next records."""
        self._names |= dict.fromkeys(name for record in records for name in record)
        try:
            arrays = [
                pa.array([_as_text(record.get(name)) for record in records], pa.string())
                for name in self._names
            ]
        except UnicodeEncodeError as error:
            message = self._half_a_character(records)
            raise DataError(message) from error
        for row, record in enumerate(records, start=self.rows):
            for name, value in record.items():
                if isinstance(value, (list, dict)):
                    self._nested.setdefault(name, row)
        self.rows += len(records)
        return pa.record_batch(arrays, names=list(self._names))

    def marked(self, table: pa.Table) -> pa.Table:
        """Note on each column which row is the first that holds no single value."""
        fields = [
            field.with_metadata({NESTED: str(self._nested[field.name])})
            if field.name in self._nested
            else field
            for field in table.schema
        ]
        return table.cast(pa.schema(fields))

    def _half_a_character(self, records: list[Record]) -> str:
        """Name the first row with a lone surrogate, which JSON can spell and UTF-8 cannot hold."""
        row, name, half = next(
            (row, name, character)
            for row, record in enumerate(records, start=self.rows)
            for name, value in record.items()
            for character in _as_text(value) or ""
            if "\ud800" <= character <= "\udfff"
        )
        return f"'{self._path}': row {row} holds half of a character, \\u{ord(half):04x}, in '{name}'. Mend the row, or remove it."


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, _Number):
        return value.written
    return json.dumps(value, ensure_ascii=False)
