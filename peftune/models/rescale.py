"""Change a tuned model for good: to another strength, or to a head fitted anew."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from peftune.errors import UsageError
from peftune.models.inference import pooled_states
from peftune.models.parts import head_of, trainable_parameters
from peftune.models.prepare import preparation_of
from peftune.models.strength import Strength, weights_at
from peftune.strategies import Strategy


def rescale_model(model: nn.Module, strength: Strength) -> None:
    """Change a tuned model's trunk to a strength; its classification head stays as it is.

    Args:
        model: a prepared model, tuned; the weights that learned are changed in place.
        strength: how far from the base.

    Raises:
        UsageError: nothing but the head learned, so every strength is the same model.
    """
    refuse_frozen_trunk(preparation_of(model).strategy)
    values = weights_at(model, preparation_of(model).before, strength, keep_head=True)
    weights = trainable_parameters(model)
    with torch.no_grad():
        for name, value in values.items():
            weights[name].copy_(value)


def refuse_frozen_trunk(strategy: Strategy) -> None:
    """Refuse a strategy that trains no trunk.

    Raises:
        UsageError: nothing but the head learned, so every strength is the same model.
    """
    if not strategy.trains_trunk:
        message = f"The strategy '{strategy.name}' leaves the trunk as it is, so every strength is the same model; there is nothing to rescale."
        raise UsageError(message)


def fit_head(model: nn.Module, texts: Sequence[str], labels: Sequence[int]) -> torch.Tensor:
    """Fit a classification head to the trunk as it is: a logistic regression on what the head reads.

    Every state is divided by its root mean square before the fit, and the head by the same after
    it, so that one penalty suits all of them. GPT-2's head has no bias, so none is fitted.

    Args:
        model: a prepared model; it is not changed.
        texts: texts of the task.
        labels: their label ids.

    Returns:
        The head's weight, (labels, hidden), float32.

    Raises:
        UsageError: a label has no rows, or the head is no single matrix.
    """
    preparation = preparation_of(model)
    shape = _head_weight(model).shape
    counts = np.bincount(np.asarray(labels), minlength=len(preparation.labels))
    if (counts == 0).any():
        name = preparation.labels[int(counts.argmin())]
        message = f"The head cannot be refitted: no row has the label '{name}'. Every label needs rows to fit on."
        raise UsageError(message)
    states = pooled_states(
        model, preparation.tokenizer, texts, max_length=preparation.max_length
    ).astype(np.float64)  # (texts, hidden)
    fitted = _fit(states, np.asarray(labels)).astype(np.float32)
    return torch.from_numpy(fitted).reshape(shape)


def set_head(model: nn.Module, weight: torch.Tensor) -> None:
    """Put a head's weight, (labels, hidden), into a prepared model."""
    with torch.no_grad():
        _head_weight(model).copy_(weight)


@contextlib.contextmanager
def with_head(model: nn.Module, weight: torch.Tensor) -> Iterator[None]:
    """Let a prepared model have another head, (labels, hidden), inside the context."""
    kept = _head_weight(model).detach().clone()
    set_head(model, weight)
    try:
        yield
    finally:
        set_head(model, kept)


def _fit(states: NDArray[np.float64], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    from sklearn.linear_model import LogisticRegression

    scale = np.sqrt((states**2).mean(axis=0))
    scale[scale == 0] = 1.0
    fitted = LogisticRegression(fit_intercept=False, max_iter=10_000).fit(states / scale, labels)
    weight = fitted.coef_ / scale  # (labels, hidden), or (1, hidden) of two labels
    return np.concatenate([-weight / 2, weight / 2]) if len(weight) == 1 else weight


def _head_weight(model: nn.Module) -> nn.Parameter:
    learning = [weight for weight in head_of(model).parameters() if weight.requires_grad]
    if len(learning) != 1 or learning[0].ndim != 2:  # noqa: PLR2004 - a matrix
        message = f"The head cannot be refitted: the strategy '{preparation_of(model).strategy.name}' makes it more than one matrix."
        raise UsageError(message)
    return learning[0]
