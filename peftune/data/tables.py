"""Tables and documents: files, saved and hub data sets, and the columns of text in them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from peftune.data.arrow import class_names_of, read_arrow, read_parquet
from peftune.data.text_rows import NESTED, read_delimited, read_json, read_utf8
from peftune.errors import DataError, PeftuneError, first_line, suggestion
from peftune.files.reading import given_path

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict


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


logger = logging.getLogger(__name__)

_COMMIT = re.compile(r"[0-9a-f]{40}")
_PLAIN = (".csv", ".tsv", ".json", ".jsonl")


def read_saved_dataset(folder: Path, *, delimiter: str | None = None) -> Dataset | DatasetDict:
    """Open a folder written by `datasets`, by `save_to_disk` or for `load_dataset`.

    Arrow files are mapped into memory where they lie. In a folder for `load_dataset`, csv, tsv and
    json files are found as `datasets` finds them and read as `read_file` reads: `datasets` would
    turn `NA` into nothing, and `00123` into a number.

    Args:
        folder: where it lies.
        delimiter: what stands between two cells of a csv or tsv; None is a comma or a tab.

    Raises:
        DataError: the folder holds no data set.
    """
    import datasets

    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            return datasets.load_from_disk(str(folder))
        builder = datasets.load_dataset_builder(str(folder))
        files: dict[str, list[str]] = dict(builder.config.data_files or {})
        paths = [Path(path) for split in files.values() for path in split]
        if builder.info.features is None and all(path.suffix.lower() in _PLAIN for path in paths):
            return datasets.DatasetDict(
                {
                    str(split): _read_plain(list(map(Path, paths)), delimiter)
                    for split, paths in files.items()
                }
            )
        return datasets.load_dataset(str(folder))
    except PeftuneError:
        raise
    except Exception as error:
        message = f"'{folder}' holds no readable data set ({type(error).__name__}: {first_line(error)}). Name a folder written by save_to_disk, or one with train.csv, test.csv and so on."
        raise DataError(message) from error


def _read_plain(paths: list[Path], delimiter: str | None) -> Dataset:
    """Read the files of one split."""
    tables = [read_file(path, delimiter=delimiter) for path in paths]
    joined = pa.concat_tables(tables, promote_options="default") if len(tables) > 1 else tables[0]
    return as_dataset(joined)


def as_dataset(table: pa.Table) -> Dataset:
    """Make a data set of a table that may lie in a file; nothing is copied.

    Without a fingerprint of its own the constructor would hash, and so read, all rows.
    """
    import datasets

    return datasets.Dataset(table, fingerprint=datasets.fingerprint.generate_random_fingerprint())


def read_hub_dataset(
    name: str, config: str | None, revision: str | None, *, instead: str
) -> DatasetDict:
    """Load a data set from the hub, or from the cache of one that was loaded before.

    Args:
        name: hub id.
        config: configuration of the data set.
        revision: commit, tag or branch.
        instead: what a user without the hub can name, for messages.

    Raises:
        DataError: it cannot be fetched, or what was found is another data set.
    """
    import datasets

    logger.info("asking the hub for the data set '%s'", name)
    try:
        data = datasets.load_dataset(name, config, revision=revision)
    except Exception as error:
        message = (
            f"The data set '{name}' is not a local folder and could not be fetched from the hub ({type(error).__name__}: {first_line(error)}). "
            f"Check the name and the connection, or use {instead}."
        )
        raise DataError(message) from error
    _refuse_another(data, name, revision, instead=instead)
    return data


def _refuse_another(data: Any, name: str, revision: str | None, *, instead: str) -> None:  # noqa: ANN401 - a DatasetDict
    """Refuse rows that `datasets` found in its cache under the name, but that are not what was asked for.

    A name without owner may be that of a local folder that was loaded once, or of a file format:
    then the files of the working folder are read. Rows of the hub lie in a folder that is named by
    their commit. Without a connection any commit in the cache serves.
    """
    folders = {
        Path(file["filename"]).parent for files in data.cache_files.values() for file in files
    }
    for folder in sorted(folders):
        if "/" not in name and not _COMMIT.fullmatch(folder.name):
            message = f"The data set '{name}' could not be fetched from the hub, and the rows in the cache of that name are not from there ('{folder}'). Give the hub id with its owner, as in 'owner/{name}', the folder itself, or use {instead}."
            raise DataError(message)
        if revision and _COMMIT.fullmatch(revision) and folder.name != revision:
            message = f"The data set '{name}' could not be fetched at revision '{revision}'; the cache holds '{folder.name}'. Check the connection, or set data.revision to that."
            raise DataError(message)


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
