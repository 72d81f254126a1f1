"""The labelled rows of a recipe: train, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from peftune.bundled import TASKS, bundled_folder, is_bundled
from peftune.data.rows import Rows, check_classes, check_rows, label_names
from peftune.data.splits import hold_out, limit
from peftune.data.tables import column, read_file, read_hub_dataset, read_saved_dataset
from peftune.errors import DataError, suggestion
from peftune.recipe.schema import DataSection, SplitName

SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True, slots=True)
class Task:
    """Rows to learn from, to choose by, and to be judged on.

    Args:
        labels: label names in the order of their ids.
        train: rows that are learned.
        validation: rows that choose the best checkpoint.
        test: rows of the final score; None where the recipe names none.
        dropped: rows left out for an empty text, by split.
    """

    labels: tuple[str, ...]
    train: Rows
    validation: Rows
    test: Rows | None
    dropped: Mapping[str, int]

    @property
    def judged(self) -> tuple[str, Rows]:
        """The split of the final score: the test, or validation where there is none."""
        return ("test", self.test) if self.test is not None else ("validation", self.validation)

    def fingerprint(self) -> str:
        """Hash the rows of every split in order, with the label names."""
        parts = [
            repr(self.labels),
            *(
                rows.sha256() if rows else "none"
                for rows in (self.train, self.validation, self.test)
            ),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Source:
    """One split: how its table is read, its name in messages, and names that its labels have already."""

    read: Callable[[], pa.Table]
    name: str
    class_names: tuple[str, ...] | None = None


def load_task(section: DataSection, *, with_test: bool = True) -> Task:
    """Read, check and split the rows that a recipe names.

    Args:
        section: which rows.
        with_test: read the test rows too. Without, the others are the same; a test file is not
            opened, and rows that are held out of train for the test are dropped.

    Raises:
        DataError: files, columns, texts or labels cannot be used; with place and remedy.
    """
    sources = _sources(section)
    tables = {
        split: source.read() for split, source in sources.items() if with_test or split != "test"
    }
    names = section.labels or _names_of(sources["train"], tables["train"], section)
    dropped: dict[str, int] = {}
    splits: dict[str, Rows] = {}
    for split, table in tables.items():
        splits[split], dropped[split] = _checked(table, sources[split], section, names)
    check_classes(splits["train"], names, source=sources["train"].name)
    if "test" not in sources and section.test_split is not None:
        splits["train"], splits["test"] = hold_out(
            splits["train"], section.test_split, seed=section.seed, key="test_split"
        )
    if not with_test:
        splits.pop("test", None)
    if "validation" not in splits:
        splits["train"], splits["validation"] = hold_out(
            splits["train"], section.validation_split, seed=section.seed, key="validation_split"
        )
    limited = {
        split: limit(
            rows,
            getattr(section, f"max_{split}_examples"),
            seed=section.seed,
            key=f"max_{split}_examples",
        )
        for split, rows in splits.items()
    }
    task = Task(
        tuple(names), limited["train"], limited["validation"], limited.get("test"), dropped
    )
    if with_test:
        split, judged = task.judged
        check_classes(judged, names, source=sources.get(split, sources["train"]).name)
    return task


def _sources(section: DataSection) -> dict[str, _Source]:
    if section.train_file is not None:
        files = {split: getattr(section, f"{split}_file") for split in SPLITS}
        return {
            split: _Source(partial(read_file, Path(path)), f"'{Path(path).name}'")
            for split, path in files.items()
            if path
        }
    name = section.dataset_name or ""
    if is_bundled(name):
        folder = bundled_folder(name, among=TASKS)
        return {
            split: _Source(partial(read_file, folder / f"{split}.jsonl"), f"{name} {split}")
            for split in SPLITS
        }
    if Path(name).is_dir():
        return _dataset_sources(read_saved_dataset(Path(name)), name, section)
    data = read_hub_dataset(
        name,
        section.dataset_config_name,
        section.revision,
        instead="data.train_file or bundled:posts",
    )
    return _dataset_sources(data, name, section)


def _dataset_sources(data: Any, name: str, section: DataSection) -> dict[str, _Source]:  # noqa: ANN401 - Dataset or DatasetDict
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
            _class_names(data[given], section.label_column),
        )
        for split, given in chosen.items()
        if given in data
    }


def _table_of(data: Any) -> pa.Table:  # noqa: ANN401 - a Dataset
    return data.with_format("arrow")[:]


def _class_names(data: Any, label_column: str) -> tuple[str, ...] | None:  # noqa: ANN401 - a Dataset
    feature = data.features.get(label_column)
    names = getattr(feature, "names", None)
    return tuple(names) if names else None


def _names_of(source: _Source, table: pa.Table, section: DataSection) -> tuple[str, ...]:
    if source.class_names is not None:
        return source.class_names
    return label_names(column(table, section.label_column, source=source.name), source=source.name)


def _checked(
    table: pa.Table, source: _Source, section: DataSection, names: tuple[str, ...]
) -> tuple[Rows, int]:
    return check_rows(
        column(table, section.text_column, source=source.name),
        _named(column(table, section.label_column, source=source.name), source, names),
        ids=table.column("id").to_pylist() if "id" in table.column_names else None,
        names=names,
        empty_text=section.empty_text,
        source=source.name,
    )


def _named(labels: list[Any], source: _Source, names: tuple[str, ...]) -> list[Any]:
    """Turn the ids of a ClassLabel feature into its names, unless the recipe renames them."""
    known = source.class_names or ()
    if not set(known) <= set(names):
        return labels
    return [
        known[label] if isinstance(label, int) and 0 <= label < len(known) else label
        for label in labels
    ]
