"""From rows to the token ids that a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from peftune.data.growing_table import GrowingTable
from peftune.data.rows import Rows
from peftune.data.saved_datasets import as_dataset
from peftune.models.tokenizer import encode_texts

_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokenized rows.

    Args:
        dataset: columns `input_ids` (int32), `labels` (int64, or float64 and lists of it) and
            `length` (tokens), one row a text; many rows lie in a temporary file.
        truncated: how many texts were longer than the limit.
    """

    dataset: Dataset
    truncated: int


def tokenize_rows(rows: Rows, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Tokens:
    """Tokenize texts once, before training.

    Args:
        rows: texts and their labels, of any kind.
        tokenizer: from `load_tokenizer`.
        max_length: tokens kept of each text.
    """
    table = GrowingTable()
    truncated = 0
    for start in range(0, len(rows), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        encoded = encode_texts(tokenizer, list(rows.texts[chunk]), max_length=None)
        truncated += sum(len(ids) > max_length for ids in encoded)
        table.append(_batch([ids[:max_length] for ids in encoded], rows.labels[chunk]))
    return Tokens(as_dataset(table.table()), truncated)


def _batch(ids: list[list[int]], labels: Sequence[Any]) -> pa.RecordBatch:
    columns = {
        "input_ids": pa.array(ids, pa.list_(pa.int32())),
        "labels": pa.array(labels, _label_type(labels[0])),
        "length": pa.array([len(text) for text in ids], pa.int64()),
    }
    return pa.record_batch(columns)


def _label_type(label: object) -> pa.DataType:
    if isinstance(label, Sequence):
        return pa.list_(pa.float64())
    return pa.float64() if isinstance(label, float) else pa.int64()


def padding_collator(tokenizer: PreTrainedTokenizerBase) -> DataCollatorWithPadding:
    """Pad each batch on the right to its own longest text."""
    return DataCollatorWithPadding(tokenizer, padding="longest")
