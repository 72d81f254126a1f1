"""What a model says of a text, by kind of task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from peftune.errors import DataError
from peftune.recipe.task_type import CLASSIFICATION, TaskName

DEFAULT_THRESHOLD = 0.5


def fixed_thresholds(
    given: float | Sequence[float] | str, labels: int
) -> tuple[float, ...] | None:
    """Return one threshold a label, as a recipe fixes them; None where validation rows decide.

    Raises:
        DataError: there are not as many as labels.
    """
    if isinstance(given, str):
        return None
    limits = (given,) * labels if isinstance(given, float) else tuple(given)
    if len(limits) != labels:
        message = f"training.label_threshold has {len(limits)} numbers for {labels} labels. Give one for all, or one a label."
        raise DataError(message)
    return limits


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one text, with the names of transformers' text-classification pipeline.

    Args:
        label: name of the likeliest label; of a regression the name of its number.
        score: probability of the label; of a regression the number itself.
        probabilities: by label name. They sum to 1, or each is for itself in multi-label; a
            regression has none.
        labels: multi-label: names of the labels whose probability reaches their threshold; there
            may be none. None in other tasks.
    """

    label: str
    score: float
    probabilities: Mapping[str, float] = field(repr=False)
    labels: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what a JSON line says of the text."""
        values: dict[str, Any] = {"label": self.label, "score": self.score}
        if self.labels is not None:
            values["labels"] = list(self.labels)
        if self.probabilities:
            values["probabilities"] = dict(self.probabilities)
        return values


def predictions_of(
    logits: NDArray[np.floating[Any]],
    *,
    kind: TaskName,
    names: Sequence[str],
    thresholds: Sequence[float] | None = None,
) -> list[Prediction]:
    """Turn logits, (texts, labels), into what they say."""
    outputs = np.asarray(logits, np.float64)
    if kind == "regression":
        return [Prediction(names[0], float(row[0]), {}) for row in outputs]
    if kind == "multi-label":
        limits = thresholds or (DEFAULT_THRESHOLD,) * len(names)
        return [_likeliest(row, names, limits) for row in expit(outputs)]
    return [_likeliest(row, names) for row in softmax(outputs, axis=-1)]


def scored_row(
    prediction: Prediction,
    label: Any,  # noqa: ANN401 - a label of any kind of task
    *,
    kind: TaskName,
    names: Sequence[str],
) -> dict[str, Any]:
    """Return what a file of scored rows says of one: its label, what was predicted, how surely.

    Args:
        prediction: what the model says.
        label: the truth: an id, a row of 0, 1 and nan, or a number.
        kind: what the label is.
        names: label names in the order of their ids.
    """
    if kind == "regression":
        return {"label": float(label), "predicted": prediction.score}
    shown = {"probabilities": dict(prediction.probabilities)}
    if kind == "multi-label":
        cells = list(zip(names, label, strict=True))
        return {
            "label": [name for name, cell in cells if cell == 1],
            "not_known": [name for name, cell in cells if np.isnan(cell)],
            "predicted": list(prediction.labels or ()),
            **shown,
        }
    return {"label": names[label], "predicted": prediction.label, **shown}


def _likeliest(
    row: NDArray[np.float64], names: Sequence[str], limits: Sequence[float] | None = None
) -> Prediction:
    named = {name: float(value) for name, value in zip(names, row, strict=True)}
    said = None
    if limits is not None:
        said = tuple(
            name for name, value, limit in zip(names, row, limits, strict=True) if value >= limit
        )
    return Prediction(names[int(row.argmax())], float(row.max()), named, said)


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
