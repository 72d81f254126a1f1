"""Read the columns of one file or data set as text, keeping every character."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from peftune.errors import DataError, suggestion

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

logger = logging.getLogger(__name__)

FILE_KINDS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")

COLUMN_ADVICE = "Set data.text_column and data.label_column."
_MAX_BLOCK = 2**31 - 1  # bytes that Arrow reads at once


def read_file(path: Path) -> pa.Table:
    """Read a table of rows.

    Text stays text: `NA`, `null`, `00123` and an empty cell keep their characters, because every
    cell of a csv or tsv is read as a string.

    Args:
        path: a csv, tsv, json, jsonl or parquet file.

    Raises:
        DataError: the file is missing, of another kind, or cannot be read; with line and cause.
    """
    if not path.is_file():
        message = f"There is no file '{path}'. A relative path in a recipe starts from the recipe's folder."
        raise DataError(message)
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        return _read_delimited(path, "," if kind == ".csv" else "\t")
    if kind == ".jsonl":
        return _from_records(_json_lines(path), path)
    if kind == ".json":
        return _from_records(_json_array(path), path)
    if kind == ".parquet":
        return _read_parquet(path)
    message = f"'{path}' is of no known kind. Allowed: {', '.join(FILE_KINDS)}."
    raise DataError(message)


def read_saved_dataset(folder: Path) -> Dataset | DatasetDict:
    """Open a folder written by `datasets`, by `save_to_disk` or for `load_dataset`.

    Raises:
        DataError: the folder holds no data set.
    """
    import datasets

    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            return datasets.load_from_disk(str(folder))
        return datasets.load_dataset(str(folder))
    except Exception as error:
        message = f"'{folder}' holds no readable data set ({type(error).__name__}: {_first_line(error)}). Name a folder written by save_to_disk, or one with train.csv, test.csv and so on."
        raise DataError(message) from error


def read_hub_dataset(
    name: str, config: str | None, revision: str | None, *, instead: str
) -> DatasetDict:
    """Load a data set from the hub.

    Args:
        name: hub id.
        config: configuration of the data set.
        revision: commit, tag or branch.
        instead: what a user without the hub can name, for messages.

    Raises:
        DataError: it cannot be fetched.
    """
    import datasets

    logger.info("asking the hub for the data set '%s'", name)
    try:
        return datasets.load_dataset(name, config, revision=revision)
    except Exception as error:
        message = (
            f"The data set '{name}' is no local folder and could not be fetched from the hub ({type(error).__name__}: {_first_line(error)}). "
            f"Check the name and the connection, or use {instead}."
        )
        raise DataError(message) from error


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
        DataError: there is no such column, or more than one.
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
    return table.column(name)


def read_utf8(path: Path) -> str:
    """Read a text file.

    Raises:
        DataError: it cannot be read, or is not UTF-8; with the byte and the line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"'{path}' cannot be read: {error.strerror}."
        raise DataError(message) from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        message = f"'{path}' is not UTF-8: byte 0x{content[error.start]:02x} at position {error.start}, line {line}. Save the file as UTF-8."
        raise DataError(message) from error


def _read_delimited(path: Path, delimiter: str) -> pa.Table:
    text = read_utf8(path)
    header = text.partition("\n")[0]
    if not header.strip():
        message = f"'{path}' is empty; its first line must name the columns."
        raise DataError(message)
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    content = text.encode()
    # One block: a quoted cell, or a quote that is never closed, may reach over any smaller one.
    block = pyarrow.csv.ReadOptions(block_size=min(len(content), _MAX_BLOCK))
    try:
        names = pyarrow.csv.open_csv(io.BytesIO(content), block, parse).schema.names
        types = {name: pa.string() for name in names}
        convert = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=False)
        return pyarrow.csv.read_csv(io.BytesIO(content), block, parse, convert)
    except pa.ArrowInvalid as error:
        message = f"'{path}' is no readable {path.suffix[1:]} file: {_first_line(error)}. Check the quotes and the number of cells in that row."
        raise DataError(message) from error


def _read_parquet(path: Path) -> pa.Table:
    try:
        return pyarrow.parquet.read_table(path)
    except (pa.ArrowException, OSError) as error:
        message = f"'{path}' is no readable parquet file: {_first_line(error)}."
        raise DataError(message) from error


def _json_lines(path: Path) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        if line.strip():
            records.append(_json_object(line, f"'{path}' line {number}"))
    return records


def _json_array(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(read_utf8(path))
    except (ValueError, RecursionError) as error:
        message = f"'{path}' is no valid JSON: {error}."
        raise DataError(message) from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        message = f"'{path}' must hold a JSON array of objects, one a row."
        raise DataError(message)
    return rows


def _json_object(line: str, place: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        message = f"{place} is no valid JSON: {error}."
        raise DataError(message) from error
    if not isinstance(record, dict):
        message = f'{place} is no JSON object; each line must be one row such as {{"text": "...", "label": "..."}}.'
        raise DataError(message)
    return record


def _from_records(records: list[dict[str, Any]], path: Path) -> pa.Table:
    """Build a table of text; a value that is no string is written as JSON writes it."""
    if not records:
        message = f"'{path}' holds no rows."
        raise DataError(message)
    names = list(dict.fromkeys(name for record in records for name in record))
    columns = {name: [_as_text(record.get(name)) for record in records] for name in names}
    try:
        return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})
    except UnicodeEncodeError as error:
        message = _half_a_character(columns, path)
        raise DataError(message) from error


def _half_a_character(columns: dict[str, list[str | None]], path: Path) -> str:
    """Name the first row with a lone surrogate, which JSON can spell and UTF-8 cannot hold."""
    row, name, half = next(
        (row, name, character)
        for name, values in columns.items()
        for row, value in enumerate(values)
        for character in value or ""
        if "\ud800" <= character <= "\udfff"
    )
    return f"'{path}': row {row} holds half of a character, \\u{ord(half):04x}, in '{name}'. Mend the row, or remove it."


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else "no message"
