"""Read parquet and Arrow files, and collect large tables batch by batch in a temporary file."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet

from peftune.errors import DataError, first_line

MOST_IN_MEMORY = 64 * 2**20
"""Bytes of rows that are kept in memory; a larger table lies in a temporary file."""


# Not `Dataset.from_generator`: it fails on a field that only later rows have, hides our error in one
# of its own, and leaves a named cache of all rows behind where a process is killed. On 300,000 rows
# it takes 12 s in place of 10 (csv) and 16 in place of 15 (JSON lines), and 35 MiB in place of 112.
class GrowingTable:
    """Collect record batches one after another, so that their source can release them.

    Beyond `MOST_IN_MEMORY` the rows are written to a file in the system's temporary folder
    (`TMPDIR`), and the table is mapped into memory instead of read. The file has no name any more
    when the table is returned: it goes with the last reference to its rows, or with the process.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._batches: list[pa.RecordBatch] = []
        self._bytes = 0
        self._parts: list[pa.Table] = []
        self._file: _ArrowFile | None = None

    def append(self, batch: pa.RecordBatch) -> None:
        """Add rows.

        Raises:
            DataError: the temporary file cannot be written.
        """
        self.rows += batch.num_rows
        self._batches.append(batch)
        self._bytes += batch.nbytes
        if self._bytes > MOST_IN_MEMORY:
            self._move_to_file()

    def table(self) -> pa.Table:
        """Return all rows, in order; a column that some batches lack is missing in their rows."""
        if self._file is not None:
            self._parts.append(self._file.mapped())
            self._file = None
        self._parts += [pa.Table.from_batches([batch]) for batch in self._batches]
        self._batches = []
        if all(part.schema == self._parts[0].schema for part in self._parts):
            return pa.concat_tables(self._parts)
        return pa.concat_tables(self._parts, promote_options="default")

    def _move_to_file(self) -> None:
        try:
            for batch in self._batches:
                if self._file is None or self._file.schema != batch.schema:
                    if self._file is not None:
                        self._parts.append(self._file.mapped())
                    self._file = _ArrowFile(batch.schema)
                self._file.write(batch)
        except OSError as error:
            message = f"The rows are larger than {MOST_IN_MEMORY >> 20} MiB and cannot be written to the temporary folder '{tempfile.gettempdir()}': {error.strerror or error}. Name a folder with room in the environment variable TMPDIR."
            raise DataError(message) from error
        self._batches = []


class _ArrowFile:
    """Batches of one schema in a temporary file.

    Args:
        schema: columns of every batch.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        with ExitStack() as unless_it_opens:
            self._file: IO[bytes] = unless_it_opens.enter_context(
                tempfile.NamedTemporaryFile(prefix="peftune-rows-", suffix=".arrow")
            )
            self._writer = pa.ipc.new_stream(self._file, schema)
            unless_it_opens.pop_all()

    def write(self, batch: pa.RecordBatch) -> None:
        """Add rows of the schema."""
        self._writer.write_batch(batch)

    def mapped(self) -> pa.Table:
        """End the file and map it into memory; closing takes its name away."""
        self._writer.close()
        self._file.flush()
        with self._file:
            return pa.ipc.open_stream(pa.memory_map(self._file.name)).read_all()


_BATCH = 2**14
"""Rows that are read before they become a part of the table."""

_FEATURES = b"huggingface"
"""Metadata in which `datasets` writes the features of a file's columns."""


def read_parquet(path: Path) -> pa.Table:
    """Read a parquet file; columns keep their types, and text that is kept as a dictionary is text.

    What `datasets` has noted of the columns stays with the table, for `class_names_of`.

    Raises:
        DataError: it is not a readable parquet file.
    """
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            table = _grown(file.schema_arrow, file.iter_batches(batch_size=_BATCH))
            return _with_features(table, file.schema_arrow)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        message = f"'{path}' is not a readable parquet file: {first_line(error)}."
        raise DataError(message) from error


def read_arrow(path: Path) -> pa.Table:
    """Map an Arrow file, such as `datasets` writes, into memory.

    Raises:
        DataError: it is not a readable Arrow file.
    """
    try:
        file = pa.memory_map(str(path))
        try:
            table = pa.ipc.open_stream(file).read_all()
        except pa.ArrowInvalid:
            file.seek(0)
            table = pa.ipc.open_file(file).read_all()
        table.validate(full=True)
        read = pa.table([plain(column) for column in table.columns], names=table.column_names)
        return _with_features(read, table.schema)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        message = f"'{path}' is not a readable Arrow file: {first_line(error)}."
        raise DataError(message) from error


def class_names_of(table: pa.Table, *, source: str) -> dict[str, tuple[str, ...]]:
    """Return the names of ids, by column, that `datasets` has noted in a file that it wrote.

    Those are the names of `ClassLabel` columns, and of columns that hold lists of such.

    Args:
        table: from `read_parquet` or `read_arrow`; any other has no names.
        source: name of the table in messages.

    Raises:
        DataError: the note is not what `datasets` writes.
    """
    written = (table.schema.metadata or {}).get(_FEATURES)
    if written is None:
        return {}
    try:
        features = json.loads(written)["info"]["features"]
        names = {column: _names(feature) for column, feature in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        message = f"{source}: the features that the file's metadata name under 'huggingface' cannot be read ({type(error).__name__}: {first_line(error)}). Write the file again with datasets, or without these metadata."
        raise DataError(message) from error
    return {column: found for column, found in names.items() if found}


def _names(feature: Any) -> tuple[str, ...]:  # noqa: ANN401 - what JSON holds
    """Find the names in a feature; those of a list are its element's."""
    if isinstance(feature, list) and len(feature) == 1:
        return _names(feature[0])
    if not isinstance(feature, dict):
        return ()
    if feature.get("_type") == "ClassLabel":
        names = feature.get("names") or ()
        return tuple(name for name in names if isinstance(name, str))
    return _names(feature["feature"]) if "feature" in feature else ()


def _with_features(table: pa.Table, schema: pa.Schema) -> pa.Table:
    written = (schema.metadata or {}).get(_FEATURES)
    return table if written is None else table.replace_schema_metadata({_FEATURES: written})


def plain(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return a column without the dictionary that its values may be kept by."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def _grown(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.Table:
    table = GrowingTable()
    empty = schema.empty_table().to_batches() or [
        pa.record_batch([pa.array([], field.type) for field in schema], schema=schema)
    ]
    for batch in itertools.chain(empty, batches):
        batch.validate(full=True)  # text that is not UTF-8 would be found row by row otherwise
        table.append(
            pa.record_batch([plain(column) for column in batch.columns], names=schema.names)
        )
    return table.table()
