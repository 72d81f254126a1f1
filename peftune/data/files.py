"""Read one file of rows, of any kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from peftune.data.columnar import read_arrow, read_parquet
from peftune.data.delimited import read_delimited
from peftune.data.json_rows import read_json
from peftune.errors import DataError
from peftune.files.paths import given_path

_DELIMITED = {".csv": ",", ".tsv": "\t"}
"""What stands between two cells, by the ending of the file's name."""

_READERS: dict[str, Callable[[Path], pa.Table]] = {
    ".json": read_json,
    ".jsonl": read_json,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}

FILE_KINDS = (*_DELIMITED, *_READERS)


def read_file(path: Path, *, delimiter: str | None = None) -> pa.Table:
    """Read a table of rows.

    Text stays text: `NA`, `null`, `00123` and an empty cell keep their characters, because every
    cell of a csv or tsv is read as a string. A large table lies in a temporary file, mapped into
    memory.

    Args:
        path: a csv, tsv, json, jsonl, parquet or arrow file.
        delimiter: what stands between two cells of a csv or tsv; None is a comma or a tab.

    Raises:
        DataError: the file is missing, of another kind, or cannot be read; with line and cause.
    """
    if not given_path(path, "file").is_file():
        message = f"There is no file '{path}'. A relative path in a recipe starts from the recipe's folder."
        raise DataError(message)
    kind = path.suffix.lower()
    if kind in _DELIMITED:
        return read_delimited(path, delimiter or _DELIMITED[kind])
    reader = _READERS.get(kind)
    if reader is None:
        message = f"'{path}' is of no known kind. Allowed: {', '.join(FILE_KINDS)}."
        raise DataError(message)
    return reader(path)
