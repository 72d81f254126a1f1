"""Where texts come from: a file, something bundled, or a data set. Light: importing it loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any, ClassVar

from pydantic import Field, model_validator

from peftune.configuration import Configuration


def quoted(names: Sequence[str]) -> str:
    """List names for a message: `'a' and 'b'`."""
    *first, last = (f"'{name}'" for name in names)
    return f"{', '.join(first)} and {last}" if first else last


class TextSource(Configuration):
    """Name one set of documents: `file`, or `dataset_name` with its configuration and split."""

    columns: ClassVar[tuple[str, ...]] = ()
    """Fields that every row must have; empty where `text_column` names the only one."""

    plain: ClassVar[bool] = True
    """Whether documents are prose, which may be joined and cut."""

    dataset_name: str | None = Field(
        None, description="bundled:general-text, a hub id, or a saved datasets folder."
    )
    dataset_config_name: str | None = Field(None, description="Configuration of the hub data set.")
    split: str = Field("test", description="Split of the data set.")
    text_column: str = Field("text", description="Column that holds one document a row.")
    file: str | None = Field(
        None,
        description="A .jsonl (field `text`) or .txt file (documents separated by form feeds, or by blank lines); relative to the recipe.",
    )
    articles: bool = Field(
        False,
        description="Rows are lines of WikiText: join them to articles, each from its ` = Title = ` on.",
    )
    max_characters: int | None = Field(
        None, gt=0, description="Read at most this much of each document, up to a whole word."
    )
    max_documents: int | None = Field(
        None, gt=0, description="Use at most this many documents, chosen evenly over the text."
    )

    @model_validator(mode="after")
    def _reads_one_text(self) -> TextSource:
        if (self.dataset_name is None) == (self.file is None):
            message = "needs either 'dataset_name' or 'file', and not both"
            raise ValueError(message)
        if self.columns and self.text_column != "text":
            message = f"'text_column' does not apply: each row needs {quoted(self.columns)}"
            raise ValueError(message)
        for name in () if self.plain else ("articles", "max_characters"):
            if getattr(self, name):
                message = f"'{name}' does not apply: each row is read whole"
                raise ValueError(message)
        return self

    @property
    def label(self) -> str:
        """How messages and reports call the text."""
        if self.file is not None:
            return PurePath(self.file).stem
        return str(self.dataset_name).rsplit(":", 1)[-1].rsplit("/", 1)[-1]

    def needed_columns(self) -> tuple[str, ...]:
        """List the fields that a row must have."""
        return self.columns or (self.text_column,)

    def document(self, row: dict[str, Any]) -> Any:  # noqa: ANN401 - what a subclass measures
        """Make one document of a row that has the needed fields.

        Returns:
            A string, or a named tuple of what a subclass compares. A blank string is left out.

        Raises:
            ValueError: a field does not hold what it must; the message says what.
        """
        value = row[self.text_column]
        return "" if value is None else str(value).strip("\r\n")
