"""Read delimited and JSON files as tables of text, and text files that must be UTF-8."""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from peftune.data.arrow import GrowingTable
from peftune.errors import DataError

_LINE_END = re.compile(rb"\r\n|\r|\n")
_LETTERS = re.compile(r"\w{0,20}")
_LETTERS_BEFORE = re.compile(r"\w{0,20}\Z")


def read_utf8(path: Path) -> str:
    """Read a text file whole, without a byte order mark; line ends stay as they are.

    Raises:
        DataError: it cannot be read, or is not UTF-8; with the byte, the line and a likely encoding.
    """
    with open_utf8(path, newline="") as file:
        return file.read()


@contextmanager
def open_utf8(path: Path, *, newline: str) -> Iterator[TextIO]:
    """Open a text file to be read piece by piece.

    Args:
        path: the file; a byte order mark at its beginning is not part of the text.
        newline: as for `open`: "" ends a line at every kind of line end, a line feed only there.

    Raises:
        DataError: it cannot be read, or is not UTF-8; with the byte, the line and a likely encoding.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        # The error counts from a block's beginning; what it is about is looked for once more.
        raise DataError(_not_utf8(path)) from error
    except OSError as error:
        message = f"'{path}' cannot be read: {error.strerror}."
        raise DataError(message) from error


def _not_utf8(path: Path) -> str:
    position, line = 0, 1
    with path.open("rb") as file:
        for content in file:
            try:
                content.decode()
            except UnicodeDecodeError as error:
                position += error.start
                line += _line_ends(content[: error.start])
                return f"'{path}' is not UTF-8: byte 0x{content[error.start]:02x} at position {position}, line {line}. {_likely(content, error.start)}Save the file as UTF-8."
            position += len(content)
            line += _line_ends(content)
    return f"'{path}' is not UTF-8, or was changed while it was read. Save the file as UTF-8."


def _line_ends(content: bytes) -> int:
    return len(_LINE_END.findall(content))


def _likely(line: bytes, fault: int) -> str:
    """Guess the encoding of a line that is not UTF-8 from its byte order mark, or from what is there."""
    if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "It looks like UTF-16. "
    try:
        text = line.decode("cp1252")  # one character a byte
    except UnicodeDecodeError:
        return ""
    before, after = _LETTERS_BEFORE.search(text[:fault]), _LETTERS.match(text[fault + 1 :])
    word = f"{before[0] if before else ''}{text[fault]}{after[0] if after else ''}"
    return f"It may be Windows-1252, which reads '{word}' there. "


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
    """Read a file whose first row names the columns; blank lines are not rows.

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
            known = [meaning for part, meaning in _FAULTS.items() if part in str(error)]
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


Record = dict[str, Any]

NESTED = b"peftune.nested"
"""Metadata of a column that holds lists or objects: the number of the first such row."""

_LOOKED_AT = 1000
"""Lines, and characters, of a file that are looked at to see what it holds."""

_SHOWN_KEYS = 5

_BATCH_ROWS = 1000
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
    """Return whether an array of objects begins: a bracket, then a brace or its end, blanks aside."""
    start = "".join(file.read(_LOOKED_AT).split())[:2]
    return start in ("[{", "[]")


def read_json_lines(path: Path) -> pa.Table:
    """Read one JSON object a line; blank lines are not rows.

    A string is its text, and a number keeps its characters: `4.50` is no `4.5`. Lists and objects
    are written as JSON writes them. What is null or NaN, or not there, is missing.

    Raises:
        DataError: a line is not a JSON object, or names a field twice; with its number.
    """
    with open_utf8(path, newline="\n") as file:
        return _table(_records_of(file, path), path)


def read_json_array(path: Path) -> pa.Table:
    """Read an array of JSON objects, one a row, or one row alone; the whole file is in memory meanwhile.

    Raises:
        DataError: the file is not such an array, or an object names a field twice.
    """
    place = f"'{path}'"
    rows = _parsed(read_utf8(path), place)
    if isinstance(rows, dict) and rows:
        if any(isinstance(value, (list, dict)) for value in rows.values()):
            message = f"{place} must hold a JSON array of objects, one a row; it holds one object, with {', '.join(map(repr, list(rows)[:_SHOWN_KEYS]))}. Write its rows as [{{...}}, {{...}}], or one a line."
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
            message = f'{place} is not a JSON object; each line must be one row such as {{"text": "...", "label": "..."}}.'
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
        message = f"{place} is not valid JSON: {error}."
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
        large = len(batch) >= _BATCH_ROWS or characters > _LARGE_BATCH
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
