"""Documents of a plain text file."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa

from peftune.data.tables import read_utf8
from peftune.errors import DataError


def split_documents(text: str) -> list[str]:
    """Split a text into documents: at form feeds, or at blank lines where it has none."""
    return text.split("\f") if "\f" in text else re.split(r"\r?\n[ \t\r]*\n", text)


def read_documents(path: Path, column: str) -> pa.Table:
    """Read the documents of a .txt file as a table of one column; blank ones are left out.

    Raises:
        DataError: there is no such file, or no document in it.
    """
    if not path.is_file():
        message = f"There is no file '{path}'. A relative path in a recipe starts from the recipe's folder."
        raise DataError(message)
    documents = [document for document in split_documents(read_utf8(path)) if document.strip()]
    if not documents:
        message = f"'{path}' holds no documents. Name a text with at least one."
        raise DataError(message)
    return pa.table({column: pa.array(documents, pa.string())})
