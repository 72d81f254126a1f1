"""Tokenized rows as a Trainer reads them: views into the columns, and batches padded on the right."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch.utils.data import Dataset as RowSource

Row = dict[str, Any]
"""`input_ids`, and where there are any `labels`: arrays, or a number for one label a row."""

_READ = ("input_ids", "labels")


class TokenRows(RowSource[Row]):
    """Give tokenized rows by number without copying or converting them.

    `datasets` turns the cells of every row into Python lists, which takes longer than the step of
    a small model. What lies in a file stays there until its rows are read.

    Args:
        rows: columns `input_ids` and `labels`, without missing cells; others are left out.
    """

    def __init__(self, rows: Dataset) -> None:
        table: pa.Table = rows.with_format("arrow")[:]
        self._columns = {
            name: _Cells(table.column(name)) for name in _READ if name in table.column_names
        }
        self._count = int(table.num_rows)

    def __len__(self) -> int:
        """Count the rows."""
        return self._count

    def __getitem__(self, index: int) -> Row:
        """Return a row by its number."""
        return {name: cells[index] for name, cells in self._columns.items()}

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        """Return the rows of a batch; `DataLoader` asks for them at once."""
        return [self[index] for index in indices]

    def __iter__(self) -> Iterator[Row]:
        """Go through all rows."""
        return (self[index] for index in range(self._count))


class _Cells:
    """A column in the pieces in which it lies; a cell is a number, or a view of numbers."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._starts = [0, *accumulate(map(len, chunks))]
        self._pieces = [_numbers(chunk) for chunk in chunks]

    def __getitem__(self, index: int) -> Any:  # noqa: ANN401 - a number, or an array
        if not 0 <= index < self._starts[-1]:
            message = f"there is no row {index} of {self._starts[-1]}"
            raise IndexError(message)
        piece = bisect_right(self._starts, index) - 1
        values, offsets = self._pieces[piece]
        place = index - self._starts[piece]
        if offsets is None:
            return values[place].item()
        return values[offsets[place] : offsets[place + 1]]


def _numbers(chunk: pa.Array) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return the numbers of a piece of a column and, where cells are lists, the end of each."""
    if pa.types.is_list(chunk.type) or pa.types.is_large_list(chunk.type):
        return chunk.values.to_numpy(), chunk.offsets.to_numpy()
    return chunk.to_numpy(), None


@dataclass(frozen=True)
class RightPadding:
    """Put rows together to a batch, each padded on the right to the longest of them.

    Args:
        pad_token_id: what stands in the place of a token.
    """

    pad_token_id: int

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Return `input_ids` and `attention_mask`, (batch, time), int64, and `labels` if rows have any.

        Labels keep their shape: int64 for ids, float32 for numbers.
        """
        lengths = [len(row["input_ids"]) for row in rows]
        ids = torch.full((len(rows), max(lengths)), self.pad_token_id)  # (batch, time)
        mask = torch.zeros_like(ids)  # (batch, time)
        for row, length, place, real in zip(rows, lengths, ids.numpy(), mask.numpy(), strict=True):
            place[:length] = row["input_ids"]
            real[:length] = 1
        batch = {"input_ids": ids, "attention_mask": mask}
        if "labels" in rows[0]:
            labels = np.asarray([row["labels"] for row in rows])
            whole = np.issubdtype(labels.dtype, np.integer)
            batch["labels"] = torch.from_numpy(labels.astype(np.int64 if whole else np.float32))
        return batch
