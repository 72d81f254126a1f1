"""From rows to the token ids that a model reads."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from peftune.data.rows import Rows
from peftune.models.tokenizer import encode_texts

_CHUNK = 1000

NOT_KNOWN = -100.0
"""Stands for a label that is not known; Trainer leaves it out of its counts of items."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokenized rows.

    Args:
        dataset: columns `input_ids`, `labels` and `length` (tokens), one row a text. Labels are
            ids, int64; numbers; or lists of 1, 0 and -100 where a label is not known.
        truncated: how many texts were longer than the limit.
        dropped_tokens: tokens of a packed text that were too few for a last window.
    """

    dataset: Dataset
    truncated: int
    dropped_tokens: int = 0


def tokenize_rows(rows: Rows, tokenizer: PreTrainedTokenizerBase, *, max_length: int) -> Tokens:
    """Tokenize texts once, before training.

    Args:
        rows: texts and label ids.
        tokenizer: from `load_tokenizer`.
        max_length: tokens kept of each text.
    """
    ids: list[list[int]] = []
    truncated = 0
    for start in range(0, len(rows), _CHUNK):
        encoded = encode_texts(
            tokenizer, list(rows.texts[start : start + _CHUNK]), max_length=None
        )
        truncated += sum(len(text) > max_length for text in encoded)
        ids += [text[:max_length] for text in encoded]
    columns = {
        "input_ids": ids,
        "labels": _labels_in_a_batch(rows),
        "length": [len(text) for text in ids],
    }
    return Tokens(Dataset.from_dict(columns), truncated)


def _labels_in_a_batch(rows: Rows) -> list[Any]:
    """Return labels that can be stacked: -100 says that one is not known."""
    return [
        [NOT_KNOWN if math.isnan(cell) else cell for cell in label]
        if isinstance(label, tuple)
        else label
        for label in rows.labels
    ]


def padding_collator(tokenizer: PreTrainedTokenizerBase) -> DataCollatorWithPadding:
    """Pad each batch on the right to its own longest text."""
    return DataCollatorWithPadding(tokenizer, padding="longest")
