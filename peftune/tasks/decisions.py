"""Which labels a model decides on, and how many of its decisions another model does not share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from peftune.recipe.task import CLASSIFICATION, TaskName
from peftune.tasks.thresholds import DEFAULT_THRESHOLD

Logits = NDArray[np.floating[Any]]


def decisions(
    logits: Logits, *, kind: TaskName, thresholds: Sequence[float] | None = None
) -> NDArray[np.bool_]:
    """Say which labels a classifier says of each text.

    Args:
        logits: (texts, labels).
        kind: `single-label` or `multi-label`; other tasks have no labels to decide on.
        thresholds: multi-label: probability from which each label is said; 0.5 without.

    Returns:
        (texts, labels), bool.
    """
    outputs = np.asarray(logits, np.float64)
    if kind == "multi-label":
        limits = thresholds or (DEFAULT_THRESHOLD,) * outputs.shape[-1]
        said: NDArray[np.bool_] = np.greater_equal(expit(outputs), np.asarray(limits))
        return said
    likeliest: NDArray[np.bool_] = np.arange(outputs.shape[-1]) == outputs.argmax(-1)[:, None]
    return likeliest


def count_flips(
    expected: Logits,
    actual: Logits,
    *,
    kind: TaskName,
    thresholds: Sequence[float] | None = None,
) -> int | None:
    """Count the texts of which two classifiers do not say the same labels.

    Returns:
        How many texts; None where a task has no labels.
    """
    if kind not in CLASSIFICATION:
        return None
    first, second = (
        decisions(logits, kind=kind, thresholds=thresholds) for logits in (expected, actual)
    )
    return int((first != second).any(axis=-1).sum())
