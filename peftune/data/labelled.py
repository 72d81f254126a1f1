"""The labelled rows of one file, for an artifact whose labels are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peftune.data.rows import Rows, check_rows
from peftune.data.tables import column, read_file
from peftune.errors import UsageError


def read_labelled(
    path: Path,
    *,
    names: Sequence[str],
    text_column: str = "text",
    label_column: str = "label",
    empty_text: str = "error",
) -> Rows:
    """Read labelled rows.

    Args:
        path: a csv, tsv, json, jsonl or parquet file.
        names: label names in the order of their ids.
        text_column: column that holds the text.
        label_column: column that holds the label, as id or name.
        empty_text: `error`, `drop` or `keep`: what to do with rows without text.

    Raises:
        DataError: the rows cannot be used.
    """
    if empty_text not in ("error", "drop", "keep"):
        message = f"empty_text must be error, drop or keep (got '{empty_text}')."
        raise UsageError(message)
    table, source = read_file(path), f"'{path.name}'"
    rows, _ = check_rows(
        column(table, text_column, source=source),
        column(table, label_column, source=source),
        ids=None,
        names=names,
        empty_text=empty_text,
        source=source,
    )
    return rows
