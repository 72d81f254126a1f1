"""Which columns of a file an artifact reads: those that it was trained on, or others by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftune.artifacts.manifest import Manifest
from peftune.data.text_column import TextColumns


def columns_of(manifest: Manifest | None, *, text_column: str | None = None) -> TextColumns:
    """Return the columns of which a text is made; `text` where nobody says.

    Args:
        manifest: what the artifact says of itself.
        text_column: a column in the place of those that it was trained on.
    """
    if text_column is not None:
        return TextColumns(text_column)
    recorded = _recorded(manifest)
    return TextColumns(
        recorded.get("text_column", "text"),
        recorded.get("text_pair_column"),
        recorded.get("template"),
    )


def label_column_of(
    manifest: Manifest | None, *, label_column: str | None = None
) -> str | Sequence[str]:
    """Return the column, or columns, of the labels; `label` where nobody says."""
    found: str | Sequence[str] = label_column or _recorded(manifest).get("label_column", "label")
    return found


def _recorded(manifest: Manifest | None) -> dict[str, Any]:
    task = manifest.task if manifest is not None else None
    columns: dict[str, Any] = (task or {}).get("columns", {})
    return columns
