"""Losses that transformers' own classifier lacks: weighted, smoothed, with labels not known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch.nn import functional

from peftune.data.rows import Labels
from peftune.data.tokens import NOT_KNOWN
from peftune.recipe.task_type import TaskName

LossFunction = Callable[..., torch.Tensor]
"""What `transformers.Trainer` takes as `compute_loss_func`."""


def loss_of(
    kind: TaskName,
    labels: Labels,
    *,
    classes: int,
    weights: Literal["balanced"] | Sequence[float] | None,
    smoothing: float = 0.0,
) -> LossFunction | None:
    """Return the loss of a task where the model's own does not do.

    Args:
        kind: what the labels are.
        labels: those of the training rows.
        classes: how many labels there are.
        weights: `balanced`: a rare label counts as much as a common one; or one a label; None: each
            row the same.
        smoothing: share of each target that is spread evenly over all labels.

    Returns:
        A function for `compute_loss_func`, or None where the model's own loss is the right one:
        cross-entropy without weights, and squared error.
    """
    if kind == "multi-label":
        return _MaskedBinaryLoss(_positive(weights, np.asarray(labels, np.float64)))
    if kind == "single-label" and (weights is not None or smoothing):
        return ClassLoss(_weights_of_classes(weights, labels, classes), smoothing=smoothing)
    return None


def given_weights(
    weights: Literal["balanced"] | Mapping[str, float] | None, names: Sequence[str]
) -> Literal["balanced"] | tuple[float, ...] | None:
    """Put the weights that a recipe gives by name in the order of the labels; 1 for the others."""
    if weights is None or isinstance(weights, str):
        return weights
    return tuple(float(weights.get(name, 1.0)) for name in names)


def _weights_of_classes(
    weights: Literal["balanced"] | Sequence[float] | None, labels: Labels, classes: int
) -> torch.Tensor | None:
    if weights is None:
        return None
    return class_weights(labels, classes) if isinstance(weights, str) else scaled(weights, labels)


def _positive(
    weights: Literal["balanced"] | Sequence[float] | None, cells: np.ndarray[Any, Any]
) -> torch.Tensor | None:
    if weights is None:
        return None
    if isinstance(weights, str):
        return positive_weights(cells)
    return torch.tensor(weights, dtype=torch.float32)


def class_weights(labels: Labels, classes: int) -> torch.Tensor:
    """Return rows / (classes x rows of the class), (classes,), float32: 1 on average over the rows.

    A class without rows weighs nothing, and is not counted.
    """
    counts = np.bincount(np.asarray(labels, np.int64), minlength=classes)
    weights = np.where(
        counts > 0, len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1)), 0
    )
    return torch.tensor(weights, dtype=torch.float32)


def scaled(weights: Sequence[float], labels: Labels) -> torch.Tensor:
    """Scale weights of classes to 1 on average over the rows, (classes,), float32.

    So they say how much a class counts beside another, and leave the size of a step alone.
    """
    given = np.asarray(weights, np.float64)
    mean = given[np.asarray(labels, np.int64)].mean()
    return torch.tensor(given / mean, dtype=torch.float32)


def positive_weights(cells: np.ndarray[Any, Any]) -> torch.Tensor:
    """Return known negatives / known positives of each label, (labels,), float32; 1 without either."""
    positive, negative = (cells == 1).sum(axis=0), (cells == 0).sum(axis=0)
    both = (positive > 0) & (negative > 0)
    weights = np.where(both, negative / np.maximum(positive, 1), 1.0)
    return torch.tensor(weights, dtype=torch.float32)


class ClassLoss:
    """Cross-entropy with a weight for each class and smoothed targets, divided by rows.

    By rows and not by weights, so the gradient of a step does not depend on how its rows are split
    into batches. Smoothed targets are weighted as `torch.nn.CrossEntropyLoss` weighs them: each
    class's share by the weight of that class.

    Args:
        weights: one a class, float32; None: each the same.
        smoothing: share of each target that is spread evenly over all classes.
    """

    def __init__(self, weights: torch.Tensor | None, *, smoothing: float = 0.0) -> None:
        self._weights, self._smoothing = weights, smoothing

    def unsmoothed(self) -> ClassLoss:
        """Return the same loss of the labels as they are."""
        return ClassLoss(self._weights)

    def __call__(
        self,
        outputs: Any,  # noqa: ANN401 - what a model returns
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Compute the loss of a batch: its part of the mean over the rows of the step."""
        logits = outputs["logits"].float()
        losses = functional.cross_entropy(
            logits,
            labels,
            weight=None if self._weights is None else self._weights.to(logits.device),
            reduction="none",
            label_smoothing=self._smoothing,
        )
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
