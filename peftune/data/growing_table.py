"""A table that grows batch by batch, and moves to a file when it is large."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from typing import IO

import pyarrow as pa

from peftune.errors import DataError

MOST_IN_MEMORY = 64 * 2**20
"""Bytes of rows that are kept in memory; a larger table lies in a temporary file."""


class GrowingTable:
    """Take record batches one after another, so that what makes them can forget them.

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
