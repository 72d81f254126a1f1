"""Read files of rows, and open data sets of the `datasets` library from folders and the hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from peftune.data.arrow import read_arrow, read_parquet
from peftune.data.text_rows import read_delimited, read_json
from peftune.errors import DataError, PeftuneError, first_line
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
            f"The data set '{name}' is no local folder and could not be fetched from the hub ({type(error).__name__}: {first_line(error)}). "
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
