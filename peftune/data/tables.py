"""Find the columns of tables, and read the documents of text files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from peftune.data.arrow import class_names_of
from peftune.data.hub_datasets import FILE_KINDS, read_file, read_hub_dataset, read_saved_dataset
from peftune.data.text_rows import NESTED, read_utf8
from peftune.errors import DataError, suggestion

__all__ = [
    "COLUMN_ADVICE",
    "FILE_KINDS",
    "chunked_column",
    "class_names_of",
    "column",
    "read_file",
    "read_hub_dataset",
    "read_saved_dataset",
    "read_utf8",
    "text_column",
]

COLUMN_ADVICE = "Set data.text_column and data.label_column."


def column(
    table: pa.Table,
    name: str,
    *,
    source: str,
    advice: str = COLUMN_ADVICE,
) -> list[Any]:
    """Return one column's values, all in memory: for labels, not for texts.

    Args:
        table: the rows.
        name: the column.
        source: name of the table in messages.
        advice: what to do if there is no such column.

    Raises:
        DataError: there is no such column, or more than one, or it holds bytes.
    """
    values: list[Any] = chunked_column(table, name, source=source, advice=advice).to_pylist()
    return values


def chunked_column(
    table: pa.Table, name: str, *, source: str, advice: str = COLUMN_ADVICE
) -> pa.ChunkedArray:
    """Return one column as it lies, without bringing its values into memory."""
    if name not in table.column_names:
        message = (
            f"{source} has no column '{name}'. {suggestion(name, table.column_names)} {advice}"
        )
        raise DataError(message)
    if (count := table.column_names.count(name)) > 1:
        message = f"{source} has {count} columns named '{name}'. Rename all but one."
        raise DataError(message)
    found = table.column(name)
    if _is_binary(found.type):
        raise DataError(_no_text(found, name, source=source, advice=advice))
    return found


def text_column(
    table: pa.Table, name: str, *, source: str, advice: str = COLUMN_ADVICE
) -> pa.ChunkedArray:
    """Return one column as it lies, if every cell is a text or can be written as one.

    Raises:
        DataError: there is no such column, or it holds bytes, lists or objects.
    """
    found = chunked_column(table, name, source=source, advice=advice)
    if pa.types.is_nested(found.type):
        raise DataError(_no_text(found, name, source=source, advice=advice))
    mark = (table.schema.field(name).metadata or {}).get(NESTED)
    if mark is not None:
        message = f"{source}: row {mark.decode()} holds a list or an object in '{name}', which is not text. Mend the row. {advice}"
        raise DataError(message)
    return found


def _no_text(column: pa.ChunkedArray, name: str, *, source: str, advice: str) -> str:
    return f"{source}: column '{name}' holds {column.type}, which is not text. {advice}"


def _is_binary(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_fixed_size_binary,
            pa.types.is_binary_view,
        )
    )


def split_documents(text: str) -> list[str]:
    """Split a text into documents: at form feeds, or at blank lines where it has none."""
    return text.split("\f") if "\f" in text else re.split(r"\r?\n[ \t\r]*\n", text)


def read_documents(path: Path, column: str) -> pa.Table:
    """Read the documents of a .txt file as a table of one column; blank ones are left out.

    Raises:
        DataError: there is no such file, or no document in it.
    """
    if not path.is_file():
        message = f"There is no file '{path}'. A relative path in a recipe starts from the recipe's folder."
        raise DataError(message)
    documents = [document for document in split_documents(read_utf8(path)) if document.strip()]
    if not documents:
        message = f"'{path}' holds no documents. Name a text with at least one."
        raise DataError(message)
    return pa.table({column: pa.array(documents, pa.string())})
