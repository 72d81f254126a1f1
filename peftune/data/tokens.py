"""From rows to the token ids that a model reads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from peftune.data.growing_table import GrowingTable
from peftune.data.rows import Labels, Rows
from peftune.data.saved_datasets import as_dataset
from peftune.data.token_rows import RightPadding
from peftune.models.tokenizer import encode_texts

_CHUNK = 1000
"""Texts that are tokenized at once."""

_LARGE_CHUNK = 2**18
"""Characters after which fewer are; a tokenizer keeps about a hundred bytes a token meanwhile."""

NOT_KNOWN = -100.0
"""Stands for a label that is not known; Trainer leaves it out of its counts of items."""


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
