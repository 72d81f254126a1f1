"""Losses that transformers' own classifier lacks: weighted, smoothed, with unknown labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from peftune.data.rows import NOT_KNOWN, Labels

LossFunction = Callable[..., torch.Tensor]
"""What `transformers.Trainer` takes as `compute_loss_func`."""


def weights_of(weights: Mapping[str, float], names: Sequence[str]) -> tuple[float, ...]:
    """Put weights by name in the order of the labels; 1 for those not named."""
    return tuple(float(weights.get(name, 1.0)) for name in names)


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


class MaskedBinaryLoss:
    """Binary cross-entropy over the labels that are known, each cell the same.

    Args:
        weights: weight of the positive rows of each label, (labels,), float32; None: 1.
    """

    def __init__(self, weights: torch.Tensor | None) -> None:
        self._weights = weights

    def __call__(
        self,
        outputs: Any,  # noqa: ANN401 - what a model returns
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Compute the loss of a batch: its part of the mean over the known cells of the step."""
        logits = outputs["logits"].float()
        known = labels != NOT_KNOWN
        weights = None if self._weights is None else self._weights.to(logits.device)
        losses = functional.binary_cross_entropy_with_logits(
            logits, torch.where(known, labels, 0.0), reduction="none", pos_weight=weights
        )
        return (losses * known).sum() / _items(num_items_in_batch, int(known.sum()))


def _items(given: torch.Tensor | int | None, counted: int) -> torch.Tensor | int:
    """Return the items of the whole step where Trainer gives them, else those of this batch."""
    return max(counted, 1) if given is None else given
