"""How an artifact behaves: logits of fixed texts, recorded at save and replayed at load."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.artifacts.manifest import Behaviour
from peftune.errors import ArtifactError
from peftune.models.inference import predict_logits
from peftune.models.reference_texts import REFERENCE_TEXTS

FLOAT_TOLERANCE = 1e-3
INT8_TOLERANCE = 0.1
"""Largest allowed difference of a logit, relative to the largest one (or to 1)."""

INT8 = "int8"
FLOAT32 = "float32"


def precision_of(model: nn.Module) -> str:
    """Name the precision of the frozen weights."""
    return INT8 if getattr(model, "is_loaded_in_8bit", False) else FLOAT32


def record_behaviour(
    model: nn.Module, tokenizer: PreTrainedTokenizerBase, *, max_length: int
) -> Behaviour:
    """Score each reference text alone, so that any of them can be replayed alone."""
    logits = predict_logits(model, tokenizer, REFERENCE_TEXTS, max_length=max_length, batch_size=1)
    return Behaviour(
        precision=precision_of(model), logits=[[float(value) for value in row] for row in logits]
    )


def check_behaviour(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    recorded: Behaviour,
    *,
    max_length: int,
    source: str,
    texts: Sequence[int] = (0, 3),
) -> None:
    """Replay some reference texts.

    Args:
        model: the model as loaded.
        tokenizer: its tokenizer.
        recorded: logits from the time of saving.
        max_length: tokens kept of each text.
        source: name of the artifact for messages.
        texts: which reference texts to replay.

    Raises:
        ArtifactError: the model does not behave as it did.
    """
    expected = np.array([recorded.logits[index] for index in texts])
    chosen = [REFERENCE_TEXTS[index] for index in texts]
    actual = predict_logits(model, tokenizer, chosen, max_length=max_length, batch_size=1)
    is_int8 = INT8 in (recorded.precision, precision_of(model))
    tolerance = (INT8_TOLERANCE if is_int8 else FLOAT_TOLERANCE) * max(
        1.0, float(np.abs(expected).max())
    )
    if expected.shape != actual.shape or not float(np.abs(expected - actual).max()) <= tolerance:
        message = (
            f"'{source}' does not reproduce the logits recorded when it was saved; its tensors and its manifest "
            "do not belong together, or library versions differ in what they compute. It is not loaded."
        )
        raise ArtifactError(message)
