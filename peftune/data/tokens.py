"""From rows to the token ids that a model reads."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset
from numpy.typing import NDArray
from torch.utils.data import Dataset as RowSource
from transformers import PreTrainedTokenizerBase

from peftune.data.arrow import GrowingTable
from peftune.data.rows import NOT_KNOWN, Labels, Rows
from peftune.data.tables import as_dataset
from peftune.errors import DataError
from peftune.models.tokenizer import encode_texts

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


_CHUNK = 1000
"""Texts that are tokenized at once."""

_LARGE_CHUNK = 2**18
"""Characters after which fewer are; a tokenizer keeps about a hundred bytes a token meanwhile."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokenized rows.

    Args:
        dataset: columns `input_ids` (int32), `labels` and `length` (tokens), one row a text; many
            rows lie in a temporary file. Labels are ids, int64; numbers, float64; or lists of 1,
            0 and -100 where a label is not known.
        truncated: how many texts were longer than the limit.
        dropped_tokens: tokens of a packed text that were too few for a last window.
    """

    dataset: Dataset
    truncated: int
    dropped_tokens: int = 0

    @property
    def mean_length(self) -> float:
        """Return the mean number of tokens of a row."""
        if "length" not in self.dataset.column_names:  # windows, all of one length
            return float(len(self.dataset[0]["input_ids"]))
        return float(pc.mean(self.dataset.data.column("length")).as_py())


def tokenize_rows(rows: Rows, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Tokens:
    """Tokenize texts once, before training.

    Args:
        rows: texts and their labels, of any kind.
        tokenizer: from `load_tokenizer`.
        max_length: tokens kept of each text.
    """
    table = GrowingTable()
    truncated = 0
    for texts, labels in chunks_of(rows):
        encoded = encode_texts(tokenizer, texts, max_length=None)
        truncated += sum(len(ids) > max_length for ids in encoded)
        table.append(_batch([ids[:max_length] for ids in encoded], labels))
    return Tokens(as_dataset(table.table()), truncated)


def chunks_of(rows: Rows) -> Iterator[tuple[list[str], Labels]]:
    """Give texts with their labels, as many at a time as are tokenized at once."""
    texts: list[str] = []
    start, characters = 0, 0
    for text in rows.texts:
        texts.append(text)
        characters += len(text)
        if len(texts) == _CHUNK or characters > _LARGE_CHUNK:
            yield texts, rows.labels[start : start + len(texts)]
            start += len(texts)
            texts, characters = [], 0
    if texts:
        yield texts, rows.labels[start:]


def _batch(ids: list[list[int]], labels: Labels) -> pa.RecordBatch:
    columns = {
        "input_ids": pa.array(ids, pa.list_(pa.int32())),
        "labels": pa.array(_stackable(labels), _label_type(labels[0])),
        "length": pa.array([len(text) for text in ids], pa.int64()),
    }
    return pa.record_batch(columns)


def _label_type(label: object) -> pa.DataType:
    if isinstance(label, Sequence):
        return pa.list_(pa.float64())
    return pa.float64() if isinstance(label, float) else pa.int64()


def _stackable(labels: Labels) -> list[Any]:
    """Return labels that can be stacked: -100 says that one is not known."""
    return [
        [NOT_KNOWN if math.isnan(cell) else cell for cell in label]
        if isinstance(label, tuple)
        else label
        for label in labels
    ]


def padding_collator(tokenizer: PreTrainedTokenizerBase) -> RightPadding:
    """Pad each batch on the right to its own longest text."""
    return RightPadding(int(tokenizer.pad_token_id))


def pack_rows(rows: Rows, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Tokens:
    """Join documents with the end token, and cut the stream into windows of `max_length` tokens.

    The stream begins with an end token, as GPT-2's training text did, and every document is
    followed by one. A window's labels are the tokens that follow its own, so that they overlap by
    one token and each token of the stream but the first is predicted exactly once. What is left
    over at the end is too short for a window and is dropped.

    Args:
        rows: one document each.
        tokenizer: from `load_tokenizer`.
        max_length: tokens of a window.

    Returns:
        One row a window: `input_ids` and `labels`, both of `max_length` tokens.

    Raises:
        DataError: the documents are too short for one window.
    """
    table = GrowingTable()
    left = np.array([], dtype=np.int32)
    for piece in _stream(rows, tokenizer):
        left = np.concatenate([left, piece])
        count = (len(left) - 1) // max_length
        if count > 0:
            table.append(_windows(left, count, max_length))
            left = left[count * max_length :]
    if not table.rows:
        message = f"A split of the documents has {len(left) - 1} tokens, too few for one window of {max_length}. Add text, or lower model.max_length."
        raise DataError(message)
    return Tokens(as_dataset(table.table()), truncated=0, dropped_tokens=len(left) - 1)


def _stream(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> Iterator[NDArray[np.int32]]:
    """Give the end token, and documents with an end token after each, some at a time."""
    end = tokenizer.eos_token_id
    yield np.array([end], dtype=np.int32)
    for texts, _ in chunks_of(rows):
        encoded = encode_texts(tokenizer, texts, max_length=None)
        yield np.array([token for ids in encoded for token in (*ids, end)], dtype=np.int32)


def _windows(stream: NDArray[np.int32], count: int, length: int) -> pa.RecordBatch:
    """Cut the first windows off a stream of tokens; each predicts what follows its tokens."""
    size = pa.list_(pa.int32())
    columns = {
        "input_ids": stream[: count * length].reshape(count, length),  # (windows, time)
        "labels": stream[1 : count * length + 1].reshape(count, length),  # (windows, time)
    }
    return pa.record_batch(
        {
            **{name: pa.array(list(windows), size) for name, windows in columns.items()},
            "length": pa.array(np.full(count, length), pa.int64()),
        }
    )
