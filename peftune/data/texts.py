"""Texts without labels, from a file."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from peftune.data.growing_table import GrowingTable
from peftune.data.split_tables import SplitTable
from peftune.data.strings import Strings
from peftune.data.tables import chunked_column, read_file
from peftune.data.text_column import TextColumns, texts_of
from peftune.data.utf8 import open_utf8
from peftune.errors import DataError
from peftune.files.paths import given_path

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
