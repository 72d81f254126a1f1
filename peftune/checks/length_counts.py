"""How long the texts are, in tokens of the base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from peftune.models.tokenizer import encode_texts

_CHUNK = 1000
_BARS = 24


@dataclass(frozen=True, slots=True)
class Lengths:
    """How long the texts are.

    Args:
        max_length: tokens kept of each text.
        edges: bounds of the bars in tokens, one more than there are bars; the last bar also counts
            what is longer than its end.
        counts: texts by bar, by split.
        median: half of the texts are at most so long, by split; tokens.
        longest: tokens of the longest text, by split.
        truncated: texts longer than `max_length`, by split.
    """

    max_length: int
    edges: Sequence[int]
    counts: Mapping[str, Sequence[int]]
    median: Mapping[str, float]
    longest: Mapping[str, int]
    truncated: Mapping[str, int]


def token_counts(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> NDArray[np.int32]:
    """Count the tokens of each text, (texts,), int32."""
    counts = np.empty(len(texts), dtype=np.int32)
    for start in range(0, len(texts), _CHUNK):
        chunk = list(texts[start : start + _CHUNK])
        encoded = encode_texts(tokenizer, chunk, max_length=None)
        counts[start : start + len(chunk)] = [len(ids) for ids in encoded]
    return counts


def lengths_of(tokens: Mapping[str, NDArray[np.int32]], max_length: int) -> Lengths | None:
    """Summarise token counts; None where there are no texts.

    Args:
        tokens: of each text, by split.
        max_length: tokens kept of each text.
    """
    tokens = {split: counts for split, counts in tokens.items() if len(counts)}
    if not tokens:
        return None
    together = np.concatenate(list(tokens.values()))
    top = max(float(np.percentile(together, 99.9)), max_length, _BARS)
    width = int(np.ceil(top / _BARS))
    edges = np.arange(_BARS + 1) * width
    return Lengths(
        max_length=max_length,
        edges=edges.tolist(),
        counts={
            split: np.histogram(np.minimum(counts, edges[-1]), edges)[0].tolist()
            for split, counts in tokens.items()
        },
        median={split: float(np.median(counts)) for split, counts in tokens.items()},
        longest={split: int(counts.max()) for split, counts in tokens.items()},
        truncated={split: int((counts > max_length).sum()) for split, counts in tokens.items()},
    )
