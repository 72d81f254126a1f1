"""From rows to the token ids that a model reads."""

from __future__ import annotations

from dataclasses import dataclass

from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedTokenizerBase

from peftune.data.rows import Rows
from peftune.models.tokenizer import encode_texts

_CHUNK = 1000


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokenized rows.

    Args:
        dataset: columns `input_ids`, `labels` (int64) and `length` (tokens), one row a text.
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
        "labels": list(rows.labels),
        "length": [len(text) for text in ids],
    }
    return Tokens(Dataset.from_dict(columns), truncated)


def padding_collator(tokenizer: PreTrainedTokenizerBase) -> DataCollatorWithPadding:
    """Pad each batch on the right to its own longest text."""
    return DataCollatorWithPadding(tokenizer, padding="longest")
