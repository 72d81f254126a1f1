"""Read one file of rows, of any kind."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa

from peftune.data.columnar import read_arrow, read_parquet
from peftune.data.delimited import read_delimited
from peftune.data.json_rows import read_json_array, read_json_lines
from peftune.errors import DataError

_READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".csv": partial(read_delimited, delimiter=","),
    ".tsv": partial(read_delimited, delimiter="\t"),
    ".json": read_json_array,
    ".jsonl": read_json_lines,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}

FILE_KINDS = tuple(_READERS)


def read_file(path: Path) -> pa.Table:
    """Read a table of rows.

    Text stays text: `NA`, `null`, `00123` and an empty cell keep their characters, because every
    cell of a csv or tsv is read as a string. A large table lies in a temporary file, mapped into
    memory.

    Args:
        path: a csv, tsv, json, jsonl, parquet or arrow file.

    Raises:
        DataError: the file is missing, of another kind, or cannot be read; with line and cause.
    """
    if not path.is_file():
        message = f"There is no file '{path}'. A relative path in a recipe starts from the recipe's folder."
        raise DataError(message)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        message = f"'{path}' is of no known kind. Allowed: {', '.join(FILE_KINDS)}."
        raise DataError(message)
    return reader(path)
