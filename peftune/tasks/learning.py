"""What was learned: the score on held-out rows, with intervals and baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peftune.recipe.task import TaskName
from peftune.stats.intervals import Interval


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
        ci95: 95% intervals over rows, by metric: bootstrapped, of roc_auc by Hanley and McNeil's
            formula.
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

    One headline score that lies clearly above what no reading reaches is enough, for a loss whose
    weights favor rare labels moves the point from which a label is said: it loses accuracy and
    likelihood for what it gains in F1. Each is set against the best that can be had unread:

    - single-label: accuracy against the majority class; macro F1 against one by the number of
      labels, which guessing by their frequencies has on average and no other guess exceeds;
    - multi-label: the loss against saying each label's share of train; macro F1 against giving
      every row every label, which no other guess exceeds;
    - both: ROC AUC against 0.5, whatever the thresholds are;
    - regression: the squared error against saying the mean of train, and Pearson against 0;
    - language modeling: the gain over the base against 0.
    """
    if learning.task == "language-modeling":
        gain = learning.ci95["bits_per_byte_gain"]
        return gain is not None and gain[0] > 0
    loss, unread = learning.ci95.get("loss"), unread_scores(learning)
    if loss is not None and "loss" in unread and loss[1] < unread["loss"]:
        return True
    return any(
        interval is not None and interval[0] > unread[name]
        for name, interval in learning.ci95.items()
        if name in unread and name != "loss"
    )


def unread_scores(learning: Learning) -> dict[str, float]:
    """Return the best that can be had of each headline score without reading a row.

    Returns:
        By the score's key in the report; empty where no baseline was scored on the same rows, and
        for language modeling, whose base is its baseline.
    """
    naive = learning.baselines.get("majority") or learning.baselines.get("mean")
    if naive is None:
        return {}
    if learning.task == "regression":
        return {"loss": naive["loss"], "pearson": 0.0}
    if learning.task == "multi-label":
        every = learning.baselines.get("every_label")
        known = {"loss": naive["loss"], "roc_auc": 0.5}
        return known if every is None else {**known, "macro_f1": every["macro_f1"]}
    labels = max(len(learning.per_label), 2)
    return {"accuracy": naive["accuracy"], "macro_f1": 1 / labels, "roc_auc": 0.5}
