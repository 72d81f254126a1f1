"""The text of every row: one column, several, a pair, or a template."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from peftune.data.arrow import GrowingTable
from peftune.data.rows import Strings, cell_text
from peftune.data.split_tables import SplitTable
from peftune.data.tables import chunked_column, read_file, text_column
from peftune.data.text_rows import open_utf8
from peftune.errors import DataError
from peftune.files.reading import given_path


class NamesText(Protocol):
    """What says of which columns a text is made: the `data` part of a recipe, or `TextColumns`."""

    @property
    def text_column(self) -> str | Sequence[str]:
        """Column that holds the text, or several that are joined by line ends."""

    @property
    def text_pair_column(self) -> str | None:
        """Column of the second text of a pair."""

    @property
    def template(self) -> str | None:
        """Text made of several columns, in the place of the others."""


@dataclass(frozen=True, slots=True)
class TextColumns:
    """Of which columns a text is made, for rows that no recipe names."""

    text_column: str | Sequence[str] = "text"
    text_pair_column: str | None = None
    template: str | None = None


def texts_of(table: SplitTable, section: NamesText) -> Strings:
    """Return the text of every row, made when it is asked for.

    Several columns are joined by line ends, without the blank ones; a pair has no text where one
    of the two is blank, a template where all of its columns are.

    Raises:
        DataError: a column is missing, or the template is none.
    """
    names, joined = _recipe_of_text(section)
    columns = [text_column(table.table, name, source=table.name) for name in names]
    if joined is None:
        return Strings(lambda row: cell_text(columns[0][row]), np.arange(table.table.num_rows))
    return Strings(
        lambda row: joined([cell_text(column[row]) for column in columns]),
        np.arange(table.table.num_rows),
    )


def pair_of(text: str, second: str) -> str:
    """Make one text of two, as a model of text pairs reads them."""
    return f"{text}\n{second}"


def _recipe_of_text(
    section: NamesText,
) -> tuple[Sequence[str], Callable[[Sequence[str]], str] | None]:
    if section.template is not None:
        return _template(section.template)
    first = section.text_column
    names = (first,) if isinstance(first, str) else first
    if section.text_pair_column is not None:
        return (*names, section.text_pair_column), _pair
    return names, _lines if len(names) > 1 else None


def _lines(parts: Sequence[str]) -> str:
    return "\n".join(part for part in parts if part.strip())


def _pair(parts: Sequence[str]) -> str:
    text, second = _lines(parts[:-1]), parts[-1]
    return pair_of(text, second) if text.strip() and second.strip() else ""


def _template(template: str) -> tuple[list[str], Callable[[Sequence[str]], str]]:
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        message = f"data.template: {error}. Write column names in braces, such as {{title}}; a brace itself is written twice."
        raise DataError(message) from error
    fields = [field for _, field, _, _ in pieces if field is not None]
    if not fields or not all(fields) or any(piece[2] or piece[3] for piece in pieces):
        message = "data.template needs column names in braces, such as {title}, and nothing else in them."
        raise DataError(message)
    names = list(dict.fromkeys(fields))
    places = [
        (literal, None if field is None else names.index(field)) for literal, field, _, _ in pieces
    ]

    def filled(parts: Sequence[str]) -> str:
        if not any(part.strip() for part in parts):
            return ""
        return "".join(
            literal + ("" if place is None else parts[place]) for literal, place in places
        )

    return names, filled


_LINES_AT_ONCE = 10_000


def read_texts(path: Path, columns: TextColumns | None = None) -> Sequence[str]:
    """Read one text a line of a .txt file, or one a row of a table.

    Args:
        path: a .txt, csv, tsv, json, jsonl or parquet file.
        columns: of which columns a text is made; `text` where none is said.

    Raises:
        DataError: the file cannot be read, has no such column, or a row has no text.
    """
    if path.suffix.lower() == ".txt":
        if not given_path(path, "file").is_file():
            message = f"There is no file '{path}'."
            raise DataError(message)
        return _lines_of(path)
    table = SplitTable("test", f"'{path.name}'", read_file(path), {})
    chosen = columns or TextColumns()
    name = chosen.text_column
    if isinstance(name, str) and chosen == TextColumns(name):
        cells = chunked_column(table.table, name, source=table.name)
        if cells.null_count:
            row = next(row for row, cell in enumerate(cells) if not cell.is_valid)
            message = f"{table.name}: row {row} has no text. Mend the row, or remove it."
            raise DataError(message)
    return texts_of(table, chosen)


def _lines_of(path: Path) -> Strings:
    """Read the lines of a file piece by piece; they lie in a file themselves where they are many."""
    found = GrowingTable()
    # A line feed alone ends a line: a text may hold what Unicode calls a line separator.
    with open_utf8(path, newline="\n") as file:
        while lines := [line.rstrip("\r\n") for line in itertools.islice(file, _LINES_AT_ONCE)]:
            found.append(pa.RecordBatch.from_pydict({"text": pa.array(lines, pa.large_string())}))
    if not found.rows:
        found.append(pa.RecordBatch.from_pydict({"text": pa.array([], pa.large_string())}))
    return texts_of(SplitTable("test", f"'{path.name}'", found.table(), {}), TextColumns())
