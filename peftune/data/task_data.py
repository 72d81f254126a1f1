"""The rows of a recipe: train, validation and test."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftune.data.cleaning import Cleaning, clean_tables
from peftune.data.labels import check_classes, encode_labels, names_of_labels
from peftune.data.rows import Rows, check_rows
from peftune.data.split_tables import SPLITS, SplitTable, read_split_tables, split_table
from peftune.data.splits import fold_of, hold_out, limit, per_label
from peftune.data.tables import read_file
from peftune.data.text_column import TextColumns, texts_of
from peftune.errors import UsageError
from peftune.recipe.schema import DataSection, SplitName
from peftune.recipe.task_type import TaskName, TaskType, task_type

__all__ = ["SPLITS", "Task", "load_task", "task_of"]


CROSS_VALIDATION = "cross-validation"
"""What the rows of a fold, and of all folds together, are called in reports."""


@dataclass(frozen=True, slots=True)
class Task:
    """Rows for training, for the choice of the checkpoint, and for the final score.

    Args:
        labels: label names in the order of their ids.
        train: training rows.
        validation: rows that choose the best checkpoint.
        test: rows of the final score; None where the recipe names none.
        dropped: rows left out for an empty text, by split.
        task_name: the task type.
        held_out: what the rows of the final score are called.
    """

    labels: tuple[str, ...]
    train: Rows
    validation: Rows
    test: Rows | None
    dropped: Mapping[str, int]
    task_name: TaskName = "single-label"
    held_out: str = "test"

    @property
    def task_type(self) -> TaskType:
        """What distinguishes its task type from the others."""
        return task_type(self.task_name)

    @property
    def evaluation(self) -> tuple[str, Rows]:
        """The split of the final score: the test, or validation where there is none."""
        return (
            (self.held_out, self.test)
            if self.test is not None
            else ("validation", self.validation)
        )

    def fingerprint(self) -> str:
        """Hash the rows of every split in order, with the label names."""
        parts = [
            f"{self.task_name} {self.labels!r}",
            *(
                rows.sha256() if rows else "none"
                for rows in (self.train, self.validation, self.test)
            ),
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def load_task(
    section: DataSection,
    task_name: TaskName = "single-label",
    *,
    with_test: bool = True,
    general: Sequence[Any] = (),
) -> Task:
    """Read, check and split the rows that a recipe names.

    Args:
        section: which rows.
        task_name: the task type.
        with_test: read the test rows too. Without, the others are the same; a test file is not
            opened, and rows that are held out of train for the test are dropped.
        general: documents of probes, which `data.clean: [drop-leaked]` keeps out of train.

    Raises:
        DataError: files, columns, texts or labels cannot be used; with place and remedy.
    """
    tables = read_split_tables(section, with_test=with_test)
    cleaning = clean_tables(tables, section, task_type(task_name), general=general)
    return task_of(tables, section, task_name, with_test=with_test, cleaning=cleaning)


def task_of(
    tables: Mapping[SplitName, SplitTable],
    section: DataSection,
    task_name: TaskName = "single-label",
    *,
    with_test: bool = True,
    cleaning: Cleaning | None = None,
) -> Task:
    """Check and split rows that were read: `load_task` without the reading.

    Args:
        tables: the splits as they were read.
        section: which rows.
        task_name: the task type.
        with_test: keep the rows that are held out of train for the test.
        cleaning: what was made of the texts; None where it is yet to be made.
    """
    cleaning = cleaning or clean_tables(tables, section, task_type(task_name))
    names = names_of_labels(
        task_type(task_name), tables["train"], section.label_column, section.labels
    )
    dropped: dict[str, int] = {}
    splits: dict[SplitName, Rows] = {}
    for split, table in tables.items():
        splits[split], dropped[split] = _checked(table, section, task_name, names, cleaning)
    check_classes(splits["train"], names, task=task_type(task_name), source=tables["train"].name)
    if "test" not in tables and section.test_split is not None:
        splits["train"], splits["test"] = hold_out(
            splits["train"], section.test_split, seed=section.seed, key="test_split"
        )
    if section.cross_validation is not None:
        _hold_out_fold(splits, section, section.cross_validation)
    if not with_test:
        splits.pop("test", None)
    if "validation" not in splits:
        splits["train"], splits["validation"] = hold_out(
            splits["train"], section.validation_split, seed=section.seed, key="validation_split"
        )
    limited = {
        split: limit(
            rows,
            _most(section, split),
            seed=section.seed,
            key=f"max_{split}_examples",
        )
        for split, rows in splits.items()
    }
    if section.train_examples_per_label is not None:
        limited["train"] = per_label(
            limited["train"], section.train_examples_per_label, seed=section.seed, names=names
        )
    held_out = "test" if section.fold is None else CROSS_VALIDATION
    task = Task(
        names,
        limited["train"],
        limited["validation"],
        limited.get("test"),
        dropped,
        task_name,
        held_out,
    )
    if with_test:
        _, evaluation_rows = task.evaluation
        source = tables.get("validation" if task.test is None else "test", tables["train"]).name
        check_classes(evaluation_rows, names, task=task_type(task_name), source=source)
    return task


def _hold_out_fold(splits: dict[SplitName, Rows], section: DataSection, folds: int) -> None:
    """Put a fold of train in the place of the test, which no fold has a say in or looks at.

    The run of all folds has none of its own; it is refused before the first where there are too
    few rows.
    """
    train = limit(
        splits["train"], section.max_train_examples, seed=section.seed, key="max_train_examples"
    )
    learned, held = fold_of(train, folds, section.fold or 0, seed=section.seed)
    if section.fold is not None:
        splits["train"], splits["test"] = learned, held


def _most(section: DataSection, split: SplitName) -> int | None:
    """Say how many rows of a split to use; a fold is scored whole."""
    if split == "test" and section.fold is not None:
        return None
    most: int | None = getattr(section, f"max_{split}_examples")
    return most


def _checked(
    table: SplitTable,
    section: DataSection,
    task_name: TaskName,
    names: tuple[str, ...],
    cleaning: Cleaning,
) -> tuple[Rows, int]:
    grouped = section.group_column
    return check_rows(
        cleaning.texts[table.split],
        encode_labels(task_type(task_name), table, section.label_column, names),
        ids=table.cells("id") if "id" in table.table.column_names else None,
        groups=None if grouped is None else table.cells(grouped),
        empty_text=section.empty_text,
        source=table.name,
        left_out=cleaning.dropped if table.split == "train" else frozenset(),
    )


def read_labeled(
    path: Path,
    *,
    names: Sequence[str],
    task_name: TaskName = "single-label",
    text: str | TextColumns = "text",
    label_column: str | Sequence[str] = "label",
    empty_text: str = "error",
) -> Rows:
    """Read labeled rows.

    Args:
        path: a csv, tsv, json, jsonl or parquet file.
        names: label names in the order of their ids.
        task_name: the task type.
        text: column that holds the text, or the columns that it is made of.
        label_column: column that holds the label, as id or name, or those of multi-label.
        empty_text: `error`, `drop` or `keep`: what to do with rows without text.

    Raises:
        DataError: the rows cannot be used.
    """
    if empty_text not in ("error", "drop", "keep"):
        message = f"empty_text must be error, drop or keep (got '{empty_text}')."
        raise UsageError(message)
    table = split_table("test", f"'{path.name}'", read_file(path))
    columns = TextColumns(text) if isinstance(text, str) else text
    rows, _ = check_rows(
        texts_of(table, columns),
        encode_labels(task_type(task_name), table, label_column, names),
        ids=None,
        empty_text=empty_text,
        source=table.name,
    )
    return rows
