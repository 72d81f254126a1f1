"""Rows from Python: kept in the run folder, so that the run can be repeated."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import pyarrow as pa
import pyarrow.compute

from peftune.data.arrow import plain
from peftune.data.rows import is_missing
from peftune.data.tables import as_dataset, read_saved_dataset
from peftune.errors import DataError, OutputFolderError, UsageError, first_line
from peftune.files.lock import LOCK
from peftune.files.publishing import is_staged, published
from peftune.recipe.schema import DataSection

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset, DatasetDict

logger = logging.getLogger(__name__)

Split: TypeAlias = Union["pd.DataFrame", "Dataset", pa.Table]
RowsInMemory: TypeAlias = Union[Split, "DatasetDict", Mapping[str, Split]]
"""A table of rows, from which the other splits are taken; or one for each split, by name."""

_ALLOWED = "a pandas DataFrame, a datasets Dataset or DatasetDict, an Arrow table, or a dict with one of them for each split"

DATA = "data"
"""Folder of the rows in the run folder."""


@contextmanager
def kept_rows(data: RowsInMemory, section: DataSection, folder: Path) -> Iterator[DataSection]:
    """Write rows into a run folder, and name them as the source of a recipe's rows.

    Of a data set the columns are read as they are stored, whatever `set_format` makes of them; a
    transform is not applied. Rows that were written are removed again if an error comes from
    inside of the `with`.

    Args:
        data: what to learn from, with the columns that the recipe names.
        section: the recipe's `data`; its own source gives way, all else stays.
        folder: the run folder: new, empty, or with a run of the same rows.

    Yields:
        The section that reads what was written.

    Raises:
        DataError: the rows cannot be written as a table.
        OutputFolderError: the folder holds something else; nothing in it is touched.
        UsageError: the data is of another kind.
    """
    splits = _splits_of(data)
    kept = folder.resolve() / DATA
    fresh = not _holds(kept, splits)
    if fresh:
        _write(splits, kept)
    source = dict.fromkeys(
        ("train_file", "validation_file", "test_file", "revision", "dataset_config_name")
    )
    named = section.splits if isinstance(data, Mapping) else {}
    try:
        yield section.model_copy(update={**source, "dataset_name": str(kept), "splits": named})
    except BaseException:
        if fresh:
            shutil.rmtree(kept, ignore_errors=True)
        raise


def _splits_of(data: RowsInMemory) -> dict[str, Dataset]:
    if not isinstance(data, Mapping):
        return {"train": _dataset_of(data, "data")}
    return {name: _dataset_of(part, f"data['{name}']") for name, part in data.items()}


def _dataset_of(part: object, name: str) -> Dataset:
    import datasets
    import pandas as pd

    if isinstance(part, datasets.Dataset):
        return _stored(part, name)
    if isinstance(part, pd.DataFrame):
        return as_dataset(_table_of(part, name))
    if hasattr(part, "__arrow_c_stream__"):  # Arrow's own tables, and those of polars
        return as_dataset(_unpacked(part, name))
    message = f"{name} is of type {type(part).__name__}. Allowed: {_ALLOWED}.{_way_out(part)}"
    raise UsageError(message)


def _stored(part: Dataset, name: str) -> Dataset:
    """Return a data set that gives its columns as they are stored."""
    if part.format["type"] == "custom":
        logger.warning(
            "%s has a transform, which is not applied: its columns are read as they are stored. Use map() for what a run is to read.",
            name,
        )
    return part.with_format(None)


def _unpacked(part: Any, name: str) -> pa.Table:  # noqa: ANN401 - what gives Arrow data
    """Read a table of another library; text that is kept as a dictionary is text."""
    try:
        table = pa.table(part)
    except (pa.ArrowException, TypeError, ValueError) as error:
        message = (
            f"{name} cannot be read as an Arrow table ({first_line(error)}). Pass {_ALLOWED}."
        )
        raise UsageError(message) from error
    columns = [plain(column) for column in table.columns]
    return pa.table(columns, names=table.column_names).replace_schema_metadata(
        table.schema.metadata
    )


def _way_out(part: object) -> str:
    """Say what makes a table of rows that are in no table."""
    import datasets

    if isinstance(part, datasets.IterableDataset):
        return " Rows that stream have no length to be split by; make a Dataset of them with datasets.Dataset.from_list(list(rows))."
    if isinstance(part, (list, tuple)):
        return " Make a Dataset of rows with datasets.Dataset.from_list, of columns with datasets.Dataset.from_dict."
    return ""


def _table_of(frame: pd.DataFrame, name: str) -> pa.Table:
    """Make a table of a frame without its index; None, NaN and NA are missing."""
    names = [str(column) for column in frame.columns]
    if len(set(names)) < len(names):
        twice = next(column for column in names if names.count(column) > 1)
        message = f"{name} has {names.count(twice)} columns named '{twice}'. Rename all but one."
        raise DataError(message)
    return pa.table(
        {
            column: _array_of(frame.iloc[:, place], f"{name}, column '{column}'")
            for place, column in enumerate(names)
        }
    )


def _array_of(values: pd.Series, place: str) -> pa.Array | pa.ChunkedArray:
    """Make a column; one of several types is text, as it would be in a csv."""
    import pandas as pd

    try:
        return plain(pa.array(values, from_pandas=True))
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        if any(hasattr(value, "tolist") for value in values):  # tensors, and numbers of numpy
            items = [value.tolist() if hasattr(value, "tolist") else value for value in values]
            return _array_of(pd.Series(items, dtype=object), place)
        texts = [None if is_missing(value) or value is pd.NA else str(value) for value in values]
        return pa.array(texts, pa.string())
    except UnicodeEncodeError as error:
        message = f"{place}: a text holds half of a character, which UTF-8 cannot hold ({first_line(error)}). Mend the row, or remove it."
        raise DataError(message) from error


def _holds(kept: Path, splits: Mapping[str, Dataset]) -> bool:
    """Return whether a folder holds these very rows."""
    if not kept.exists():
        return False
    there = read_saved_dataset(kept)
    return list(there) == list(splits) and all(
        _comparable(there[name]).equals(_comparable(part)) for name, part in splits.items()
    )


def _comparable(part: Dataset) -> pa.Table:
    """Return the rows with null for NaN, which equals nothing, not even itself."""
    table: pa.Table = part.with_format("arrow")[:]
    for place, field in enumerate(table.schema):
        if pa.types.is_floating(field.type):
            column = table.column(place)
            known = pyarrow.compute.if_else(pyarrow.compute.is_nan(column), None, column)
            table = table.set_column(place, field, known)
    return table


def _write(splits: Mapping[str, Dataset], kept: Path) -> None:
    import datasets

    folder = kept.parent
    if folder.is_dir() and not all(
        path.name == LOCK or is_staged(path.name) for path in folder.iterdir()
    ):
        message = f"'{folder}' holds a run of other rows, or something else. Choose another folder with output, or empty it."
        raise OutputFolderError(message)
    try:
        with published(kept) as staging:
            datasets.DatasetDict(splits).save_to_disk(str(staging))
    except OSError as error:
        message = f"'{folder}' cannot be written: {error.strerror or error}. Choose another output folder."
        raise OutputFolderError(message) from error
