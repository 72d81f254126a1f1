"""The documents that a probe or a regularizer reads."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from peftune.bundled import TEXTS, bundled_folder, is_bundled
from peftune.configuration import TextSource, quoted
from peftune.data.tables import (
    chunked_column,
    read_file,
    read_hub_dataset,
    read_saved_dataset,
    read_utf8,
    split_documents,
    text_column,
)
from peftune.errors import DataError, suggestion
from peftune.files.reading import given_path

_SPLITS = ("train", "validation", "test")
_TITLE = re.compile(r"= [^=].*[^=] =|= [^=] =")
_WHOLE_WORDS = re.compile(r".*\S(?=\s)", re.DOTALL)


def load_documents(source: TextSource) -> tuple[Any, ...]:
    """Read the documents of a source, in their order.

    Returns:
        What the source's `document` makes of each row: mostly strings; blank ones are left out.

    Raises:
        DataError: the text cannot be found or read, lacks a field, or holds no document.
    """
    name = source.file or source.dataset_name or ""
    shown = Path(name).name if source.file is not None else name
    documents = [
        _document(source, row, place=f"'{shown}', row {number}")
        for number, row in enumerate(_rows(source), start=1)
    ]
    if source.articles:
        documents = _articles(documents)
    documents = [_shortened(document, source.max_characters) for document in documents]
    documents = [
        document for document in documents if not isinstance(document, str) or document.strip()
    ]
    if not documents:
        message = f"'{shown}' holds no documents. Name a text with at least one."
        raise DataError(message)
    return tuple(_spread(documents, source.max_documents))


def _document(source: TextSource, row: dict[str, Any], *, place: str) -> Any:  # noqa: ANN401 - what a source makes of a row
    try:
        return source.document(row)
    except ValueError as error:
        message = f"{place}: {error}."
        raise DataError(message) from error


def _articles(lines: Sequence[str]) -> list[str]:
    """Join the lines of WikiText to articles; a title has one equals sign on each side."""
    articles: list[list[str]] = [[]]
    for line in lines:
        if _TITLE.fullmatch(line.strip()):
            articles.append([])
        articles[-1].append(line)
    return ["\n".join(article) for article in articles]


def _shortened(document: Any, most: int | None) -> Any:  # noqa: ANN401 - what a source makes of a row
    if most is None or not isinstance(document, str) or len(document) <= most:
        return document
    whole = _WHOLE_WORDS.match(document, 0, most + 1)
    return whole[0] if whole else document[:most]


def documents_sha256(documents: Sequence[Any]) -> str:
    """Hash the documents in order."""
    digest = hashlib.sha256()
    for document in documents:
        text = document if isinstance(document, str) else json.dumps(document)
        content = text.encode("utf-8", "surrogatepass")
        digest.update(f"{len(content)} ".encode() + content)
    return digest.hexdigest()


def _rows(source: TextSource) -> list[dict[str, Any]]:
    if source.file is not None:
        return _from_file(Path(source.file), source)
    name = source.dataset_name or ""
    if is_bundled(name):
        folder = bundled_folder(name, among=TEXTS)
        if source.split not in _SPLITS:
            message = (
                f"'{name}' has no split '{source.split}'. {suggestion(source.split, _SPLITS)}"
            )
            raise DataError(message)
        return _from_file(folder / f"{source.split}.jsonl", source)
    data = (
        read_saved_dataset(Path(name))
        if given_path(name, "dataset_name").is_dir()
        else read_hub_dataset(
            name,
            source.dataset_config_name,
            None,
            instead="the probe's file or bundled:general-text",
        )
    )
    if isinstance(data, dict):
        if source.split not in data:
            message = f"'{name}' has no split '{source.split}'. {suggestion(source.split, data)}"
            raise DataError(message)
        data = data[source.split]
    return _records(data.with_format("arrow")[:], source, name)


def _from_file(path: Path, source: TextSource) -> list[dict[str, Any]]:
    if not given_path(path, "file").is_file():
        message = f"There is no file '{path}' to read documents from. Check 'file'; a relative path starts from the recipe."
        raise DataError(message)
    if path.suffix.lower() != ".txt":
        return _records(read_file(path), source, path.name)
    if source.needed_columns() != (source.text_column,):
        message = f"'{path.name}' is plain text, but rows with {quoted(source.needed_columns())} are needed. Give a .jsonl file."
        raise DataError(message)
    text = read_utf8(path)
    if source.articles:
        return [{source.text_column: line} for line in text.split("\n")]
    return [{source.text_column: document} for document in split_documents(text)]


def _records(table: pa.Table, source: TextSource, name: str) -> list[dict[str, Any]]:
    needed = source.needed_columns()
    is_text = needed == (source.text_column,)
    find = text_column if is_text else chunked_column
    advice = (
        "Set text_column to the one that holds the text."
        if is_text
        else f"Each row needs {quoted(needed)}."
    )
    columns = {
        key: find(table, key, source=f"'{name}'", advice=advice).to_pylist() for key in needed
    }
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


def _spread(documents: list[Any], maximum: int | None) -> list[Any]:
    """Choose documents evenly over the text, so that no part of it is left out."""
    if maximum is None or maximum >= len(documents):
        return documents
    step = len(documents) / maximum
    return [documents[int(index * step)] for index in range(maximum)]
