"""How an artifact behaves: logits of fixed texts, recorded at save and replayed at load."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.artifacts.manifest import Behaviour
from peftune.errors import ArtifactError
from peftune.models.inference import predict_logits
from peftune.models.language import token_log_probabilities
from peftune.models.reference_texts import REFERENCE_TEXTS
from peftune.models.tokenizer import encode_texts
from peftune.recipe.task import TaskName, has_head

FLOAT_TOLERANCE = 1e-3
INT8_TOLERANCE = 0.1
"""Largest allowed difference of a logit, relative to the largest one (or to 1)."""

INT8 = "int8"
FLOAT32 = "float32"


def precision_of(model: nn.Module) -> str:
    """Name the precision of the frozen weights."""
    return INT8 if getattr(model, "is_loaded_in_8bit", False) else FLOAT32


def record_behaviour(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int,
    task: TaskName = "single-label",
) -> Behaviour:
    """Score each reference text alone, so that any of them can be replayed alone.

    What is recorded are logits; of a task without a head, the log-probabilities of the text's own
    tokens.
    """
    rows = _scores(model, tokenizer, REFERENCE_TEXTS, max_length=max_length, task=task)
    return Behaviour(precision=precision_of(model), logits=rows)


def _scores(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_length: int,
    task: TaskName,
) -> list[list[float]]:
    if has_head(task):
        logits = predict_logits(model, tokenizer, texts, max_length=max_length, batch_size=1)
        return [[float(value) for value in row] for row in logits]
    encoded = encode_texts(tokenizer, list(texts), max_length=max_length)
    end = int(tokenizer.eos_token_id)
    return [token_log_probabilities(model, ids, prefix=end) for ids in encoded]


def check_behaviour(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    recorded: Behaviour,
    *,
    max_length: int,
    source: str,
    texts: Sequence[int] = (0, 3),
    task: TaskName = "single-label",
) -> None:
    """Replay some reference texts.

    Args:
        model: the model as loaded.
        tokenizer: its tokenizer.
        recorded: logits from the time of saving.
        max_length: tokens kept of each text.
        source: name of the artifact for messages.
        texts: which reference texts to replay.
        task: what the artifact has learned.

    Raises:
        ArtifactError: the model does not behave as it did.
    """
    expected = np.concatenate([recorded.logits[index] for index in texts])
    chosen = [REFERENCE_TEXTS[index] for index in texts]
    actual = np.concatenate(_scores(model, tokenizer, chosen, max_length=max_length, task=task))
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
