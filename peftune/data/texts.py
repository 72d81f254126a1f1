"""Texts without labels, from a file."""

from __future__ import annotations

import io
from pathlib import Path

from peftune.data.tables import column, read_file, read_utf8
from peftune.errors import DataError


def read_texts(path: Path, text_column: str = "text") -> list[str]:
    """Read one text a line of a .txt file, or one a row of a table.

    Raises:
        DataError: the file cannot be read, has no such column, or a row has no text.
    """
    if path.suffix.lower() == ".txt":
        if not path.is_file():
            message = f"There is no file '{path}'."
            raise DataError(message)
        # Not splitlines(): a text may hold what Unicode calls a line separator.
        return [line.rstrip("\r\n") for line in io.StringIO(read_utf8(path))]
    values = column(read_file(path), text_column, source=f"'{path.name}'")
    for row, value in enumerate(values):
        if value is None:
            message = f"'{path.name}': row {row} has no text. Mend the row, or remove it."
            raise DataError(message)
    return [str(value) for value in values]
