"""Store trained weights in bfloat16 where no predicted label changes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from peftune.errors import UsageError
from peftune.models.architecture import trainable_parameters
from peftune.models.inference import predict_logits
from peftune.models.interpolation import snapshot
from peftune.models.prepare import preparation_of
from peftune.recipe.schema import StoredType, refuse_unlabeled
from peftune.tasks.predictions import count_flips

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rounding:
    """What came of rounding trained weights to bfloat16.

    Args:
        texts: how many texts were predicted with and without.
        flips: of how many the predicted labels changed; the weights stay as they were if any.
        largest_difference: largest change of a logit.
    """

    texts: int
    flips: int
    largest_difference: float

    @property
    def dtype(self) -> StoredType:
        """What the weights can be stored as."""
        return "float32" if self.flips else "bfloat16"


def round_weights(
    model: nn.Module, texts: Sequence[str], *, thresholds: Sequence[float] | None = None
) -> Rounding:
    """Round the trainable weights to bfloat16, in place, unless a predicted label changes.

    They remain float32 in memory, with values that bfloat16 holds exactly.

    Args:
        model: a prepared model of a task with labels.
        texts: whose predicted labels must not change; validation texts.
        thresholds: multi-label: probability from which each label is said; 0.5 without.

    Raises:
        UsageError: the task has no labels, or there are no texts to see them on.
    """
    preparation = preparation_of(model)
    _refuse_unlabeled(model, "bfloat16")
    if not len(texts):
        message = "There are no texts on which to see whether bfloat16 changes a label. Pass validation_texts=…, or save in float32."
        raise UsageError(message)
    tokenizer, length = preparation.tokenizer, preparation.max_length
    before = predict_logits(model, tokenizer, texts, max_length=length)
    kept, weights = snapshot(model), trainable_parameters(model)
    with torch.no_grad():
        for weight in weights.values():
            weight.copy_(weight.to(torch.bfloat16))
    after = predict_logits(model, tokenizer, texts, max_length=length)
    flips = count_flips(before, after, kind=preparation.task, thresholds=thresholds) or 0
    if flips:
        with torch.no_grad():
            for name, weight in weights.items():
                weight.copy_(kept[name])
    rounding = Rounding(len(texts), flips, float(np.abs(before - after).max()))
    _tell(rounding)
    return rounding


@contextlib.contextmanager
def weights_as_stored(
    model: nn.Module,
    dtype: StoredType,
    texts: Sequence[str],
    *,
    thresholds: Sequence[float] | None = None,
) -> Iterator[StoredType]:
    """Let a model have, inside the context, the weights that a file of a type can hold.

    Args:
        model: a prepared model; afterwards it is as it was.
        dtype: the type that is asked for.
        texts: on which no predicted label may change; not read where the weights are rounded
            already.
        thresholds: multi-label: probability from which each label is said.

    Yields:
        The type to store: float32 where bfloat16 would change a label.

    Raises:
        UsageError: the task has no labels, or there are no texts to see them on.
    """
    _refuse_unlabeled(model, dtype)
    if dtype == "float32" or _is_rounded(model):
        yield dtype
        return
    kept = snapshot(model)
    try:
        yield round_weights(model, texts, thresholds=thresholds).dtype
    finally:
        with torch.no_grad():
            for name, weight in trainable_parameters(model).items():
                weight.copy_(kept[name])


def _refuse_unlabeled(model: nn.Module, dtype: StoredType) -> None:
    try:
        refuse_unlabeled(dtype, preparation_of(model).task)
    except ValueError as error:
        message = f"{error}."
        raise UsageError(message) from error


def _is_rounded(model: nn.Module) -> bool:
    return all(
        torch.equal(weight, weight.to(torch.bfloat16).to(weight.dtype))
        for weight in trainable_parameters(model).values()
    )


def _tell(rounding: Rounding) -> None:
    if rounding.flips:
        logger.warning(
            "bfloat16 would change the labels of %d of %d validation texts, so the weights stay in float32",
            rounding.flips,
            rounding.texts,
        )
    else:
        logger.info(
            "no label of %d validation texts changes in bfloat16, so the weights are rounded to it",
            rounding.texts,
        )
