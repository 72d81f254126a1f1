"""A baseline on the judged rows: what it predicts, what that scores, and how sure that is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import accuracy_score, f1_score

from peftune.data.rows import Rows
from peftune.stats.intervals import Interval
from peftune.stats.scores import better_macro_f1_p_value, mean_share_interval

Scores = dict[str, float]
"""`accuracy`, `macro_f1`; of the prompted base `log_loss` (nats) and `ece` too, lower is better."""

COUNTS = ("right_alone", "wrong_alone")
"""Scores that are numbers of rows."""

P_VALUES = ("macro_f1_p_value",)
"""Scores that are probabilities of one model's gain by chance."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline on the rows that the strategies are judged on, or on a sample of them.

    Args:
        name: `majority`, `tfidf_logistic_regression`, `linear_probe`, `few_shot_4`, ….
        title: how tables call it.
        rows: ids of the rows that were judged, in order.
        predicted: a label id for each of these rows, once for every choice of examples; one choice
            where there is nothing to choose. None where nothing was measured.
        accuracy: share of rows with the right label, as a mean over the choices.
        macro_f1: F1 averaged over labels, as a mean over the choices.
        ci95: 95% interval of the accuracy over rows, for these choices of examples.
        seconds: what it took, fitting and asking together.
        details: what was chosen, such as the examples of a prompt.
        reason: why figures are None.
    """

    name: str
    title: str
    rows: Sequence[str]
    predicted: Sequence[Sequence[int]] | None
    accuracy: float | None
    macro_f1: float | None
    ci95: Interval | None
    seconds: float
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return every field, ready for a file."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Baseline:
        """Read what `as_json` gave, after its way through a file.

        Raises:
            TypeError: fields are missing or unknown.
        """
        predicted, interval = values.get("predicted"), values.get("ci95")
        return cls(
            **{
                **values,
                "rows": tuple(values["rows"]),
                "predicted": predicted and tuple(tuple(choice) for choice in predicted),
                "ci95": interval and (interval[0], interval[1]),
            }
        )


def scores_of(truth: Sequence[int], predicted: Sequence[int], *, classes: Sequence[int]) -> Scores:
    """Score label ids against the truth.

    Args:
        truth: label ids.
        predicted: label ids of the same rows.
        classes: labels over which F1 is averaged; one without rows and predictions counts 0.
    """
    f1 = f1_score(truth, predicted, labels=list(classes), average="macro", zero_division=0)
    return {"accuracy": float(accuracy_score(truth, predicted)), "macro_f1": float(f1)}


def against(
    truth: Sequence[int],
    predicted: Sequence[int],
    said: Sequence[int],
    *,
    labels: int,
    seed: int,
) -> Scores:
    """Compare a baseline with a model row by row, as a paired test needs it.

    Args:
        truth: label ids.
        predicted: what the baseline says of the same rows.
        said: what the model says of them.
        labels: labels over which F1 is averaged.
        seed: seed of the test of macro F1.

    Returns:
        `right_alone`, rows that the baseline has right and the model wrong; `wrong_alone`, the other
        way round; `macro_f1_p_value`, the one-sided probability by chance of a gain in macro F1 like
        the model's.
    """
    true, baseline, model = (np.asarray(ids, np.int64) for ids in (truth, predicted, said))
    return {
        "right_alone": int(((baseline == true) & (model != true)).sum()),
        "wrong_alone": int(((baseline != true) & (model == true)).sum()),
        "macro_f1_p_value": better_macro_f1_p_value(
            true, model, baseline, labels=labels, seed=seed
        ),
    }


def judged_baseline(
    name: str,
    title: str,
    *,
    judged: Rows,
    predicted: Sequence[Sequence[int]],
    labels: int,
    seconds: float,
    details: Mapping[str, Any] | None = None,
) -> Baseline:
    """Score a baseline's predictions, with the interval that strategies have.

    Args:
        name: see `Baseline`.
        title: see `Baseline`.
        judged: the rows.
        predicted: label ids of the rows, once for every choice of examples.
        labels: how many labels there are.
        seconds: what it took.
        details: what was chosen.
    """
    scores = [scores_of(judged.labels, ids, classes=range(labels)) for ids in predicted]
    right = np.asarray(predicted) == np.asarray(judged.labels)  # (choices, rows)
    interval = mean_share_interval(right.astype(np.float64)) if len(judged) > 1 else None
    return Baseline(
        name,
        title,
        tuple(judged.ids),
        tuple(tuple(int(label) for label in ids) for ids in predicted),
        float(np.mean([score["accuracy"] for score in scores])),
        float(np.mean([score["macro_f1"] for score in scores])),
        interval,
        seconds,
        details or {},
        None if interval is not None else "ci95: one row has no spread",
    )
