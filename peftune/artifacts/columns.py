"""What an artifact reads of a file: which columns, and cleaned as what it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftune.artifacts.manifest import Manifest
from peftune.data.clean import cleaned_text
from peftune.data.strings import Strings
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


def cleaned_for(manifest: Manifest | None, texts: Sequence[str]) -> Sequence[str]:
    """Clean texts as those were cleaned that an artifact was trained on; most were not.

    Args:
        manifest: what the artifact says of itself.
        texts: as they are written. Rows of a recipe are cleaned already, and are not cleaned
            again: an entity in an entity would become a sign.
    """
    steps = manifest.clean if manifest is not None else None
    if not steps:
        return texts
    if isinstance(texts, Strings):
        return texts.mapped(lambda text: cleaned_text(text, steps))
    return [cleaned_text(text, steps) for text in texts]


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
