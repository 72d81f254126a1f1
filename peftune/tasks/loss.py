"""Losses that transformers' own classifier lacks: weighted, and with labels that are not known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from peftune.data.rows import Labels
from peftune.data.tokens import NOT_KNOWN
from peftune.recipe.task import TaskName

LossFunction = Callable[..., torch.Tensor]
"""What `transformers.Trainer` takes as `compute_loss_func`."""


def loss_of(
    kind: TaskName, labels: Labels, *, classes: int, weights: str | None
) -> LossFunction | None:
    """Return the loss of a task where the model's own does not do.

    Args:
        kind: what the labels are.
        labels: those of the training rows.
        classes: how many labels there are.
        weights: `balanced`: a rare label counts as much as a common one; None: each row the same.

    Returns:
        A function for `compute_loss_func`, or None where the model's own loss is the right one:
        cross-entropy without weights, and squared error.
    """
    if kind == "multi-label":
        cells = np.asarray(labels, np.float64)
        return _MaskedBinaryLoss(positive_weights(cells) if weights else None)
    if kind == "single-label" and weights:
        return _WeightedLoss(class_weights(labels, classes))
    return None


def class_weights(labels: Labels, classes: int) -> torch.Tensor:
    """Return rows / (classes x rows of the class), (classes,), float32: 1 on average over the rows.

    A class without rows weighs nothing, and is not counted.
    """
    counts = np.bincount(np.asarray(labels, np.int64), minlength=classes)
    weights = np.where(
        counts > 0, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0
    )
    return torch.tensor(weights, dtype=torch.float32)


def positive_weights(cells: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return known negatives / known positives of each label, (labels,), float32; 1 without either."""
    positive, negative = (cells == 1).sum(axis=0), (cells == 0).sum(axis=0)
    both = (positive > 0) & (negative > 0)
    weights = np.where(both, negative / np.maximum(positive, 1), 1.0)
    return torch.tensor(weights, dtype=torch.float32)


class _WeightedLoss:
    """Cross-entropy in which each class has its weight, divided by rows and not by weights.

    So the gradient of a step does not depend on how its rows are split into batches.
    """

    def __init__(self, weights: torch.Tensor) -> None:
        self._weights = weights

    def __call__(
        self,
        outputs: Any,  # noqa: ANN401 - what a model returns
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        logits = outputs["logits"].float()
        weights = self._weights.to(logits.device)[labels]
        losses = functional.cross_entropy(logits, labels, reduction="none") * weights
        return losses.sum() / _items(num_items_in_batch, len(labels))


class _MaskedBinaryLoss:
    """Binary cross-entropy over the labels that are known, each cell the same."""

    def __init__(self, weights: torch.Tensor | None) -> None:
        self._weights = weights

    def __call__(
        self,
        outputs: Any,  # noqa: ANN401 - what a model returns
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        logits = outputs["logits"].float()
        known = labels != NOT_KNOWN
        weights = None if self._weights is None else self._weights.to(logits.device)
        losses = functional.binary_cross_entropy_with_logits(
            logits, torch.where(known, labels, 0.0), reduction="none", pos_weight=weights
        )
        return (losses * known).sum() / _items(num_items_in_batch, int(known.sum()))


def _items(given: torch.Tensor | int | None, counted: int) -> torch.Tensor | int:
    """Return the items of the whole step where Trainer says them, else those of this batch."""
    return max(counted, 1) if given is None else given
