"""The table of each split that a recipe names, as it lies in its file or data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from peftune.bundled import TASKS, bundled_folder, is_bundled
from peftune.data.rows import Strings, cell_text
from peftune.data.tables import (
    chunked_column,
    class_names_of,
    read_documents,
    read_file,
    read_hub_dataset,
    read_saved_dataset,
)
from peftune.errors import DataError, suggestion
from peftune.recipe.schema import DataSection, SplitName

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class SplitTable:
    """One split as it was read; nothing in it has been checked.

    Args:
        split: what the rows serve as.
        name: what the table is called in messages.
        table: its columns; those of a large file lie on disk.
        class_names: the names of a label column of ids, by column, where the data set has them.
        key: the recipe's key that names the rows; empty for rows that no recipe names.
        place: what it names: the path of a file, without links, or a split of the data set.
    """

    split: SplitName
    name: str
    table: pa.Table
    class_names: Mapping[str, tuple[str, ...]]
    key: str = ""
    place: Path | str = ""

    def cells(self, column: str) -> Strings:
        """Return the cells of a column as text, each read when it is asked for.

        Raises:
            DataError: there is no such column, or it holds bytes.
        """
        found = chunked_column(self.table, column, source=self.name)
        return Strings(lambda row: cell_text(found[row]), np.arange(len(found)))


@dataclass(frozen=True, slots=True)
class _Source:
    """How a split's table is read, its name in messages, and the names that its ids have already.

    Args:
        read: reads it.
        name: what the table is called in messages.
        key: the recipe's key that names the rows.
        place: what it names: the path of a file, without links, or a split of the data set.
        class_names: names of ids, by column.
    """

    read: Callable[[], pa.Table]
    name: str
    key: str
    place: Path | str
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_split_tables(
    section: DataSection, *, with_test: bool = True
) -> dict[SplitName, SplitTable]:
    """Read the table of every split that a recipe names.

    Args:
        section: which rows.
        with_test: read the test too; without, a test file is not opened.

    Raises:
        DataError: a file or data set cannot be read, or has no such split.
    """
    return {
        split: dataclasses.replace(
            split_table(split, source.name, source.read(), source.class_names),
            key=source.key,
            place=source.place,
        )
        for split, source in _sources(section).items()
        if with_test or split != "test"
    }


def split_table(
    split: SplitName,
    name: str,
    table: pa.Table,
    class_names: Mapping[str, tuple[str, ...]] | None = None,
) -> SplitTable:
    """Put a table under the name of a split; names of ids come from the file where none are given."""
    return SplitTable(split, name, table, class_names or class_names_of(table, source=name))


def _sources(section: DataSection) -> dict[SplitName, _Source]:
    if section.train_file is not None:
        files = {split: getattr(section, f"{split}_file") for split in SPLITS}
        return {
            split: _Source(
                _reader(Path(path), section),
                f"'{Path(path).name}'",
                f"data.{split}_file",
                Path(path).resolve(),
            )
            for split, path in files.items()
            if path
        }
    name = section.dataset_name or ""
    if is_bundled(name):
        folder = bundled_folder(name, among=TASKS)
        return {
            split: _Source(
                partial(read_file, folder / f"{split}.jsonl"),
                f"{name} {split}",
                f"data.splits.{split}",
                split,
            )
            for split in SPLITS
        }
    if Path(name).is_dir():
        saved = read_saved_dataset(Path(name), delimiter=section.delimiter)
        return _dataset_sources(saved, name, section)
    data = read_hub_dataset(
        name,
        section.dataset_config_name,
        section.revision,
        instead="data.train_file or bundled:posts",
    )
    return _dataset_sources(data, name, section)


def _reader(path: Path, section: DataSection) -> Callable[[], pa.Table]:
    """Read plain text as documents, which have no columns of their own; all else as a table."""
    if path.suffix.lower() == ".txt":
        named = section.text_column if isinstance(section.text_column, str) else "text"
        return partial(read_documents, path, named)
    return partial(read_file, path, delimiter=section.delimiter)


def _dataset_sources(data: Any, name: str, section: DataSection) -> dict[SplitName, _Source]:  # noqa: ANN401 - Dataset or DatasetDict
    if not isinstance(data, dict):
        data = {"train": data}
    chosen = {split: section.splits.get(split, split) for split in SPLITS}
    for split, given in chosen.items():
        if given not in data and (split in section.splits or split == "train"):
            message = (
                f"'{name}' has no split '{given}'. {suggestion(given, data)} Set data.splits."
            )
            raise DataError(message)
    return {
        split: _Source(
            partial(_table_of, data[given]),
            f"'{name}' {given}",
            f"data.splits.{split}",
            given,
            class_names=_class_names(data[given]),
        )
        for split, given in chosen.items()
        if given in data
    }


def _table_of(data: Any) -> pa.Table:  # noqa: ANN401 - a Dataset
    return data.with_format("arrow")[:]


def _class_names(data: Any) -> dict[str, tuple[str, ...]]:  # noqa: ANN401 - a Dataset
    """Find the names of ids: of `ClassLabel` columns, and of those that hold lists of such."""
    names = {
        name: getattr(getattr(feature, "feature", feature), "names", None)
        for name, feature in data.features.items()
    }
    return {column: tuple(known) for column, known in names.items() if known}
