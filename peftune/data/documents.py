"""The documents that a probe reads."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from peftune.bundled import TEXTS, bundled_folder, is_bundled
from peftune.data.tables import column, read_file, read_hub_dataset, read_saved_dataset, read_utf8
from peftune.errors import DataError, suggestion
from peftune.probes import Probe


def load_documents(probe: Probe) -> tuple[str, ...]:
    """Read a probe's documents, in the order of their source.

    Raises:
        DataError: the text cannot be found or read, or holds no document.
    """
    documents = [text.strip("\r\n") for text in _read(probe) if text.strip()]
    if not documents:
        message = f"The text of probe '{probe.label}' holds no documents."
        raise DataError(message)
    return tuple(_spread(documents, probe.max_documents))


def documents_sha256(documents: Sequence[str]) -> str:
    """Hash the documents in order."""
    digest = hashlib.sha256()
    for document in documents:
        content = document.encode("utf-8", "surrogatepass")
        digest.update(f"{len(content)} ".encode() + content)
    return digest.hexdigest()


def _read(probe: Probe) -> list[str]:
    if probe.file is not None:
        return _from_file(Path(probe.file), probe.text_column)
    name = probe.dataset_name or ""
    if is_bundled(name):
        return _from_file(bundled_folder(name, among=TEXTS) / "test.jsonl", probe.text_column)
    data = (
        read_saved_dataset(Path(name))
        if Path(name).is_dir()
        else read_hub_dataset(
            name,
            probe.dataset_config_name,
            None,
            instead="the probe's file or bundled:general-text",
        )
    )
    if isinstance(data, dict):
        if probe.split not in data:
            message = f"'{name}' has no split '{probe.split}'. {suggestion(probe.split, data)}"
            raise DataError(message)
        data = data[probe.split]
    return _texts(data.with_format("arrow")[:], probe.text_column, name)


def _from_file(path: Path, text_column: str) -> list[str]:
    if not path.is_file():
        message = f"There is no probe file '{path}'. Check the probe's 'file'; a relative path starts from the recipe."
        raise DataError(message)
    if path.suffix.lower() != ".txt":
        return _texts(read_file(path), text_column, path.name)
    text = read_utf8(path)
    return text.split("\f") if "\f" in text else re.split(r"\r?\n[ \t\r]*\n", text)


def _texts(table: pa.Table, text_column: str, source: str) -> list[str]:
    values = column(table, text_column, source=f"'{source}'")
    return ["" if value is None else str(value) for value in values]


def _spread(documents: list[str], maximum: int | None) -> list[str]:
    """Choose documents evenly over the text, so that no part of it is left out."""
    if maximum is None or maximum >= len(documents):
        return documents
    step = len(documents) / maximum
    return [documents[int(index * step)] for index in range(maximum)]
