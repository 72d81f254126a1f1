"""How rows of a task type are trained, scored and predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from transformers import EvalPrediction

from peftune.data.rows import Labels
from peftune.errors import UsageError
from peftune.recipe.task_type import TaskType
from peftune.tasks.loss import LossFunction
from peftune.tasks.predictions import Prediction
from peftune.tasks.scores import Learning

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
