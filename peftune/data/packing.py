"""From documents to full windows of tokens: nothing padded, nothing read twice."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from datasets import Dataset
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from peftune.data.rows import Rows
from peftune.data.tokens import Tokens
from peftune.errors import DataError
from peftune.models.tokenizer import encode_texts

_CHUNK = 1000


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
    stream = _stream(rows, tokenizer)
    count = (len(stream) - 1) // max_length
    if count == 0:
        message = f"A split of the documents has {len(stream) - 1} tokens, too few for one window of {max_length}. Add text, or lower model.max_length."
        raise DataError(message)
    windows = stream[: count * max_length].reshape(count, max_length)
    following = stream[1 : count * max_length + 1].reshape(count, max_length)
    columns = {
        "input_ids": windows,  # (windows, time)
        "labels": following,  # (windows, time)
        "length": np.full(count, max_length),
    }
    dropped = len(stream) - 1 - count * max_length
    return Tokens(Dataset.from_dict(columns), truncated=0, dropped_tokens=dropped)


def _stream(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int32]:
    """Return the end token, and each document with an end token after it."""
    end = np.array([tokenizer.eos_token_id], dtype=np.int32)
    return np.concatenate([end, *_pieces(rows, tokenizer, end)])


def _pieces(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, end: NDArray[np.int32]
) -> Iterator[NDArray[np.int32]]:
    for start in range(0, len(rows), _CHUNK):
        texts = list(rows.texts[start : start + _CHUNK])
        for ids in encode_texts(tokenizer, texts, max_length=None):
            yield np.array(ids, dtype=np.int32)
            yield end
