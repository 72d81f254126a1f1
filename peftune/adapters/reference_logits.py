"""Reference logits: what an artifact makes of a few texts, recorded at save and replayed at load."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.adapters.manifest import Precision, ReferenceLogits
from peftune.adapters.tensors import adapter_tensors
from peftune.errors import ArtifactError, GuardError
from peftune.models.inference import predict_logits
from peftune.models.lm_head import token_log_probabilities
from peftune.models.prepare import preparation_of, prepare_model
from peftune.models.tokenizer import REFERENCE_TEXTS, encode_texts
from peftune.recipe.task_type import TaskName, has_head

INT8: Precision = "int8"
FLOAT32: Precision = "float32"

LOAD_TOLERANCES: Mapping[Precision, float] = {FLOAT32: 1e-3, INT8: 0.1}
"""Largest difference that a load lets pass, relative to the largest recorded number (or to 1).

Wide, for who is refused has no way around it: in float32 a thousand times what another batch makes
of the same weights, in int8 some times that. `peftune.adapters.verify` is stricter.
"""

Numbers = NDArray[np.float32] | Sequence[float]
Rows = list[NDArray[np.float32]]
"""What a model makes of texts: numbers for each."""


def precision_of(model: nn.Module) -> Precision:
    """Name the precision of the frozen weights."""
    return INT8 if getattr(model, "is_loaded_in_8bit", False) else FLOAT32


def record_reference_logits(model: nn.Module) -> ReferenceLogits:
    """Record what a prepared model makes of the reference texts, each scored alone.

    A model on an int8 base is recorded a second time, with what it learned put on the base held in
    float32; that is loaded for it on the CPU, and let go.
    """
    found = {precision_of(model): _recorded(model)}
    if FLOAT32 not in found:
        found[FLOAT32] = _recorded(_in_float32(model))
        gc.collect()  # modules refer to each other, and these are as large as the base
    return ReferenceLogits(texts=list(REFERENCE_TEXTS), logits=found)


def replay(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_length: int,
    task: TaskName = "single-label",
    batch_size: int = 1,
) -> Rows:
    """Say what a model makes of texts, each scored alone unless they are batched.

    Args:
        model: a sequence classifier; any model around a GPT-2 backbone for a task without a head.
        tokenizer: its tokenizer.
        texts: any strings.
        max_length: tokens kept of each text.
        task: the task type.
        batch_size: texts in one padded batch.

    Returns:
        Of each text its logits, (labels,), float32; of a task without a head the log-probabilities
        of its own tokens, (tokens,), in nats.
    """
    if has_head(task):
        return list(
            predict_logits(model, tokenizer, texts, max_length=max_length, batch_size=batch_size)
        )
    encoded = encode_texts(tokenizer, list(texts), max_length=max_length)
    found: Rows = []
    for start in range(0, len(encoded), batch_size):
        batch = encoded[start : start + batch_size]
        rows = token_log_probabilities(model, batch, prefix=int(tokenizer.eos_token_id))
        found += [row.numpy() for row in rows]
    return found


def check_reference_logits(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    recorded: ReferenceLogits,
    *,
    max_length: int,
    source: str,
    task: TaskName = "single-label",
) -> None:
    """Replay two recorded texts as one padded batch: they are short, and differ in length.

    Args:
        model: the model as loaded.
        tokenizer: its tokenizer.
        recorded: from the time of saving.
        max_length: tokens kept of each text.
        source: name of the artifact for messages.
        task: the task type.

    Raises:
        ArtifactError: the model does not behave as it did.
    """
    if not reproduces(model, tokenizer, recorded, max_length=max_length, task=task):
        message = (
            f"'{source}' does not reproduce the logits recorded when it was saved; its tensors and its manifest "
            "do not belong together, or library versions differ in what they compute. It is not loaded."
        )
        raise ArtifactError(message)


def reproduces(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    recorded: ReferenceLogits,
    *,
    max_length: int,
    task: TaskName,
) -> bool:
    """Say whether a model gives two recorded texts, as one padded batch, the logits that they have alone.

    Every load asks it, and every save asks it first. The arguments are those of `check_reference_logits`.
    """
    precision = precision_of(model)
    chosen = _two_short(tokenizer, recorded.texts, max_length=max_length)
    expected = [recorded.logits[precision][index] for index in chosen]
    actual: Rows = []
    with contextlib.suppress(FloatingPointError):  # logits that are not finite are none
        actual = replay(
            model,
            tokenizer,
            [recorded.texts[index] for index in chosen],
            max_length=max_length,
            task=task,
            batch_size=len(chosen),
        )
    return largest_difference(expected, actual) <= LOAD_TOLERANCES[precision] * scale_of(expected)


def largest_difference(expected: Sequence[Numbers], actual: Sequence[Numbers]) -> float:
    """Return the largest absolute difference; infinite where sizes differ, NaN where a number is."""
    if [len(row) for row in expected] != [len(row) for row in actual]:
        return float("inf")
    return float(np.abs(np.concatenate(expected) - np.concatenate(actual)).max())


def arrays(recorded: Sequence[Sequence[float]]) -> Rows:
    """Turn recorded numbers into what a replay returns."""
    return [np.asarray(row, dtype=np.float32) for row in recorded]


def scale_of(expected: Sequence[Numbers]) -> float:
    """Return the largest absolute number, at least 1: what tolerances are relative to."""
    return max(1.0, float(np.abs(np.concatenate(expected)).max()))


def _recorded(model: nn.Module) -> list[list[float]]:
    preparation = preparation_of(model)
    rows = replay(
        model,
        preparation.tokenizer,
        REFERENCE_TEXTS,
        max_length=preparation.max_length,
        task=preparation.task,
    )
    # A float32 in the fewest digits that give it back.
    return [[float(str(value)) for value in row] for row in rows]


def _in_float32(model: nn.Module) -> nn.Module:
    """Put what a model has learned on its base held in float32, on the CPU."""
    preparation = preparation_of(model)
    twin = prepare_model(
        preparation.base,
        preparation.strategy,
        labels=preparation.labels,
        task=preparation.task,
        max_length=preparation.max_length,
        use_cpu=True,
        in_float32=True,
    )
    learned, weights = adapter_tensors(model), adapter_tensors(twin)
    if set(learned) != set(weights):
        message = f"The strategy '{preparation.strategy.name}' trains other weights on an int8 base than on the same base in float32, so its artifact could not move between them."
        raise GuardError(message)
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(learned[name])
    return twin


def _two_short(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int
) -> list[int]:
    """Choose the shortest text and the shortest of those that are longer, if there are any."""
    sizes = [len(ids) for ids in encode_texts(tokenizer, list(texts), max_length=max_length)]
    order = sorted(range(len(texts)), key=lambda index: (sizes[index], index))
    longer = [index for index in order if sizes[index] > sizes[order[0]]]
    return [order[0], *(longer or order[1:])[:1]]
