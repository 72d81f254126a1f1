"""From documents to full windows of tokens: nothing padded, nothing read twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from peftune.data.growing_table import GrowingTable
from peftune.data.rows import Rows
from peftune.data.saved_datasets import as_dataset
from peftune.data.tokens import Tokens, chunks_of
from peftune.errors import DataError
from peftune.models.tokenizer import encode_texts


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
