"""Texts without labels, from a file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from peftune.data.split_tables import SplitTable
from peftune.data.tables import chunked_column, read_file, read_utf8
from peftune.data.text_column import TextColumns, texts_of
from peftune.errors import DataError
from peftune.files.paths import given_path


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
        # Not splitlines(): a text may hold what Unicode calls a line separator.
        return [line.rstrip("\r\n") for line in io.StringIO(read_utf8(path))]
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
