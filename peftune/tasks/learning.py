"""What was learned: the score on held-out rows, with intervals and baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peftune.forgetting.intervals import Interval
from peftune.recipe.task import TaskName


@dataclass(frozen=True, slots=True)
class Learning:
    """The final score of a run.

    Args:
        split: `test`, or `validation` where the recipe names no test rows.
        n: rows scored.
        accuracy: share of rows with the right label; multi-label: with all known labels right.
        macro_f1: F1 averaged over labels.
        loss: lower is better: mean cross-entropy in nats; of a regression the mean squared error; of
            language modeling nats per token.
        metrics: further metrics by name; None where undefined.
        ci95: 95% bootstrap intervals over rows, by metric.
        per_label: precision, recall, f1 and support by label.
        confusion: rows by true label (first index) and predicted label (second); None where a row
            has not just one label.
        baselines: scores of simple baselines on the same rows.
        curve: points of the training and validation curves, in order.
        reason: why values are None.
        task: the kind of task, which decides what is None: accuracy and macro F1 where there are no
            labels.
    """

    split: str
    n: int
    accuracy: float | None
    macro_f1: float | None
    loss: float
    metrics: Mapping[str, float | None]
    ci95: Mapping[str, Interval | None]
    per_label: Mapping[str, Mapping[str, float]]
    confusion: Sequence[Sequence[int]] | None
    baselines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    curve: Sequence[Mapping[str, Any]] = ()
    reason: str | None = None
    task: TaskName = "single-label"


def learned_something(learning: Learning) -> bool:
    """Say whether more was learned than what can be said without reading: the gate of every verdict.

    Single-label: the interval of the accuracy lies above the majority class. Multi-label and
    regression: that of the loss lies below what saying the mean of train for every row costs.
    Language modeling: that of the gain over the base lies above zero.
    """
    if learning.task == "language-modeling":
        gain = learning.ci95["bits_per_byte_gain"]
        return gain is not None and gain[0] > 0
    naive = learning.baselines.get("majority") or learning.baselines.get("mean")
    if naive is None:
        return False
    if learning.task == "single-label":
        interval = learning.ci95["accuracy"]
        return interval is not None and interval[0] > naive["accuracy"]
    interval = learning.ci95["loss"]
    return interval is not None and interval[1] < naive["loss"]
