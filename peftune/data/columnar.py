"""Read parquet and Arrow files: columns with types."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from peftune.data.growing_table import GrowingTable
from peftune.errors import DataError, first_line

_BATCH = 2**14
"""Rows that are read before they become a part of the table."""


def read_parquet(path: Path) -> pa.Table:
    """Read a parquet file; columns keep their types, and text that is kept as a dictionary is text.

    Raises:
        DataError: it is no readable parquet file.
    """
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            return _grown(file.schema_arrow, file.iter_batches(batch_size=_BATCH))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        message = f"'{path}' is no readable parquet file: {first_line(error)}."
        raise DataError(message) from error


def read_arrow(path: Path) -> pa.Table:
    """Map an Arrow file, such as `datasets` writes, into memory.

    Raises:
        DataError: it is no readable Arrow file.
    """
    try:
        file = pa.memory_map(str(path))
        try:
            table = pa.ipc.open_stream(file).read_all()
        except pa.ArrowInvalid:
            file.seek(0)
            table = pa.ipc.open_file(file).read_all()
        table.validate(full=True)
        return pa.table([plain(column) for column in table.columns], names=table.column_names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        message = f"'{path}' is no readable Arrow file: {first_line(error)}."
        raise DataError(message) from error


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
        batch.validate(full=True)  # text that is no UTF-8 would be found row by row otherwise
        table.append(
            pa.record_batch([plain(column) for column in batch.columns], names=schema.names)
        )
    return table.table()
