"""How rows of a task type are trained, scored and predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional
from transformers import EvalPrediction

from peftune.data.rows import NOT_KNOWN, Labels
from peftune.errors import UsageError
from peftune.recipe.task_type import TaskType
from peftune.tasks.scores import Learning

DEFAULT_THRESHOLD = 0.5
"""Decision threshold of a label for which nothing else is given."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model predicts for one text, with the names of transformers' text-classification pipeline.

    Args:
        label: name of the likeliest label; of a regression the name of its number.
        score: probability of the label; of a regression the number itself.
        probabilities: by label name. They sum to 1, or each is for itself in multi-label; a
            regression has none.
        labels: multi-label: names of the labels whose probability reaches their decision threshold;
            there may be none. None in other task types.
    """

    label: str
    score: float
    probabilities: Mapping[str, float] = field(repr=False)
    labels: tuple[str, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the values of the text's JSON line."""
        values: dict[str, Any] = {"label": self.label, "score": self.score}
        if self.labels is not None:
            values["labels"] = list(self.labels)
        if self.probabilities:
            values["probabilities"] = dict(self.probabilities)
        return values


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


Logits = NDArray[np.floating[Any]]
ClassWeights = Literal["balanced"] | Mapping[str, float] | None
"""`balanced`: a rare label counts as much as a common one; or a weight by label name, 1 for the
others; None: each row counts the same."""


class TaskMethods:
    """How rows of one task type are trained, scored and predicted.

    A subclass overrides what its task type has. The methods of this class are right for a task type
    without labels: it has no metrics of logits and decides nothing. scikit-learn and scipy.stats are
    imported by the first score, so that loading an artifact and predicting stay fast.
    """

    task: ClassVar[TaskType]

    def loss(
        self,
        labels: Labels,
        *,
        names: Sequence[str],
        weights: ClassWeights,
        smoothing: float = 0.0,
    ) -> LossFunction | None:
        """Return the training loss where the model's own is not the right one.

        Args:
            labels: labels of the training rows.
            names: label names in the order of their ids.
            weights: `training.class_weights`.
            smoothing: share of each target that is spread evenly over all labels.

        Returns:
            A function for `compute_loss_func`; None where the model's own loss is right:
            cross-entropy without weights, squared error, and next-token prediction.
        """

    def metrics(
        self, logits: Logits, labels: NDArray[Any], thresholds: Sequence[float] | None = None
    ) -> dict[str, float | None]:
        """Compute every metric; None where one is not defined.

        Args:
            logits: (rows, labels).
            labels: ids, (rows,); 0, 1 and nan, (rows, labels); or numbers, (rows,).
            thresholds: multi-label: decision thresholds, (labels,).

        Raises:
            TrainingError: a logit is not finite.
        """
        del logits, labels, thresholds
        return {}

    def decisions(
        self, logits: Logits, thresholds: Sequence[float] | None = None
    ) -> NDArray[np.bool_] | None:
        """Decide which labels each text has.

        Args:
            logits: (texts, labels).
            thresholds: multi-label: decision thresholds, (labels,); 0.5 without.

        Returns:
            (texts, labels), bool; None where the task type has no classes.
        """

    def fixed_thresholds(
        self,
        given: float | Sequence[float] | str,
        labels: int,
    ) -> tuple[float, ...] | None:
        """Return one decision threshold a label, as a recipe fixes them.

        Args:
            given: `training.label_threshold`.
            labels: how many labels there are.

        Returns:
            None where the validation rows decide, or where the task type has no thresholds.

        Raises:
            DataError: there are not as many as labels.
        """

    def predictions(
        self, logits: Logits, *, names: Sequence[str], thresholds: Sequence[float] | None = None
    ) -> list[Prediction]:
        """Turn logits, (texts, labels), into a prediction for each text."""
        del logits, names, thresholds
        self._refuse()

    def scored_row(
        self,
        prediction: Prediction,
        label: Any,  # noqa: ANN401 - a label of any task type
        *,
        names: Sequence[str],
    ) -> dict[str, Any]:
        """Return what a file of scored rows holds for one row: its label and its prediction.

        Args:
            prediction: the prediction.
            label: the truth: an id, a row of 0, 1 and nan, or a number.
            names: label names in the order of their ids.
        """
        del prediction, label, names
        self._refuse()

    def score(
        self,
        logits: Logits,
        labels: Labels,
        *,
        names: Sequence[str],
        split: str,
        metric: str | None = None,
        thresholds: Sequence[float] | None = None,
        baselines: Mapping[str, Mapping[str, float]] | None = None,
        curve: Sequence[Mapping[str, Any]] = (),
    ) -> Learning:
        """Score logits against labels.

        Args:
            logits: (rows, labels).
            labels: labels of the same rows, as `Rows` holds them.
            names: label names in the order of their ids.
            split: which split the rows are.
            metric: metric that the checkpoint was chosen by, whose significance is tested; the
                default of the task type where it is None.
            thresholds: multi-label: decision thresholds, (labels,).
            baselines: scores of baselines on the same rows.
            curve: points of the training curve.

        Raises:
            TrainingError: a logit is not finite.
        """
        learning = self._learning(
            logits, labels, names=names, split=split, metric=metric, thresholds=thresholds
        )
        return dataclasses.replace(learning, baselines=baselines or {}, curve=curve)

    def _learning(
        self,
        logits: Logits,
        labels: Labels,
        *,
        names: Sequence[str],
        split: str,
        metric: str | None,
        thresholds: Sequence[float] | None,
    ) -> Learning:
        """Score logits against labels, without baselines and curve."""
        del logits, labels, names, split, metric, thresholds
        self._refuse()

    def count_flips(
        self, expected: Logits, actual: Logits, thresholds: Sequence[float] | None = None
    ) -> int | None:
        """Count the texts for which two models decide on different labels; None without classes."""
        first, second = (self.decisions(logits, thresholds) for logits in (expected, actual))
        if first is None or second is None:
            return None
        return int((first != second).any(axis=-1).sum())

    def metrics_for_trainer(
        self, thresholds: Sequence[float] | None = None
    ) -> Callable[[EvalPrediction], dict[str, float]]:
        """Return the metrics in the form that Trainer asks for, without those that are not defined."""

        def compute(prediction: EvalPrediction) -> dict[str, float]:
            outputs = prediction.predictions
            logits = np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs)
            labels = self._known(np.asarray(prediction.label_ids))
            metrics = self.metrics(logits, labels, thresholds)
            return {name: value for name, value in metrics.items() if value is not None}

        return compute

    def _known(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return labels as `metrics` takes them, of those that the model was given."""
        return labels

    def _refuse(self) -> NoReturn:
        message = f"'task: {self.task.name}' scores whole documents; it has no labeled rows."
        raise UsageError(message)
