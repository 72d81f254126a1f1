"""The labelled rows of one file, for an artifact whose labels are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peftune.data.labels import read_labels
from peftune.data.rows import Rows, check_rows
from peftune.data.split_tables import split_table
from peftune.data.tables import read_file
from peftune.data.text_column import TextColumns, texts_of
from peftune.errors import UsageError
from peftune.recipe.task import TaskName


def read_labelled(
    path: Path,
    *,
    names: Sequence[str],
    kind: TaskName = "single-label",
    text: str | TextColumns = "text",
    label_column: str | Sequence[str] = "label",
    empty_text: str = "error",
) -> Rows:
    """Read labelled rows.

    Args:
        path: a csv, tsv, json, jsonl or parquet file.
        names: label names in the order of their ids.
        kind: what the labels are.
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
        read_labels(kind, table, label_column, names),
        ids=None,
        empty_text=empty_text,
        source=table.name,
    )
    return rows
