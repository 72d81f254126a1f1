"""A baseline on the evaluation rows: its predictions, their scores and the interval of the accuracy."""

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


TITLES = {
    "majority": "majority class",
    "tfidf_logistic_regression": "TF-IDF, logistic regression",
    "tfidf_ridge": "TF-IDF, ridge regression",
    "every_label": "every label",
    "linear_probe": "linear probe of the frozen base",
}
"""Titles of the baselines by name; a prompted base has its own, and another name stands for itself."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline on the evaluation rows, or on a sample of them.

    Args:
        name: `majority`, `tfidf_logistic_regression`, `linear_probe`, `few_shot_4`, ….
        title: its name in tables.
        accuracy: share of rows with the right label, as a mean over the choices of examples.
        macro_f1: F1 averaged over labels, as a mean over the choices.
        ci95: 95% interval of the accuracy over rows, for these choices of examples.
        rows: ids of the rows that were predicted, in order; empty where they are not known.
        predicted: a label id for each of these rows, once for every choice of examples (one choice
            where there is nothing to choose). None where it was not measured or is not known.
        seconds: time of fitting and predicting.
        details: what was chosen, such as the examples of a prompt.
        reason: why figures are None.
    """

    name: str
    title: str
    accuracy: float | None = None
    macro_f1: float | None = None
    ci95: Interval | None = None
    rows: Sequence[str] = ()
    predicted: Sequence[Sequence[int]] | None = None
    seconds: float = 0.0
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    reason: str | None = None

    @property
    def n(self) -> int | None:
        """The number of rows; None where they are not known."""
        return len(self.rows) or None

    def as_json(self) -> dict[str, Any]:
        """Return every field, ready for a file."""
        return dataclasses.asdict(self)

    def as_entry(self) -> dict[str, Any]:
        """Return the entry of `comparison.json`: the figures without the single rows."""
        return {name: getattr(self, name) for name in _ENTRY} | {"n": self.n}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Baseline:
        """Read what `as_json` returned, from a file.

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

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Baseline:
        """Read what `as_entry` returned, from a file.

        Raises:
            LookupError: a field is missing.
        """
        return cls.from_json({name: entry[name] for name in _ENTRY} | {"rows": ()})


_ENTRY = ("name", "title", "accuracy", "macro_f1", "ci95", "details", "reason")


def best_baseline(baselines: Sequence[Baseline]) -> Baseline | None:
    """Return the most accurate baseline; None where none was measured."""
    known = [one for one in baselines if one.accuracy is not None]
    return max(known, key=lambda one: one.accuracy or 0.0, default=None)


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
    model: Sequence[int],
    *,
    labels: int,
    seed: int,
) -> Scores:
    """Compare a baseline with a model row by row, as a paired test needs it.

    Args:
        truth: label ids.
        predicted: the baseline's label ids of the same rows.
        model: the model's label ids of them.
        labels: labels over which F1 is averaged.
        seed: seed of the test of macro F1.

    Returns:
        `right_alone`, rows that the baseline has right and the model wrong; `wrong_alone`, the other
        way round; `macro_f1_p_value`, the one-sided probability by chance of a gain in macro F1 like
        the model's.
    """
    true, baseline, tuned = (np.asarray(ids, np.int64) for ids in (truth, predicted, model))
    return {
        "right_alone": int(((baseline == true) & (tuned != true)).sum()),
        "wrong_alone": int(((baseline != true) & (tuned == true)).sum()),
        "macro_f1_p_value": better_macro_f1_p_value(
            true, tuned, baseline, labels=labels, seed=seed
        ),
    }


def scored_baseline(
    name: str,
    *,
    evaluation: Rows,
    predicted: Sequence[Sequence[int]],
    labels: int,
    title: str | None = None,
    seconds: float = 0.0,
    details: Mapping[str, Any] | None = None,
) -> Baseline:
    """Score a baseline's predictions, with the interval that strategies have.

    Args:
        name: see `Baseline`.
        evaluation: the evaluation rows.
        predicted: label ids of the rows, once for every choice of examples.
        labels: number of labels.
        title: see `Baseline`; otherwise from `TITLES`.
        seconds: see `Baseline`.
        details: see `Baseline`.
    """
    scores = [scores_of(evaluation.labels, ids, classes=range(labels)) for ids in predicted]
    right = np.asarray(predicted) == np.asarray(evaluation.labels)  # (choices, rows)
    interval = mean_share_interval(right.astype(np.float64)) if len(evaluation) > 1 else None
    return Baseline(
        name,
        title or TITLES[name],
        accuracy=float(np.mean([score["accuracy"] for score in scores])),
        macro_f1=float(np.mean([score["macro_f1"] for score in scores])),
        ci95=interval,
        rows=tuple(evaluation.ids),
        predicted=tuple(tuple(int(label) for label in ids) for ids in predicted),
        seconds=seconds,
        details=details or {},
        reason=None if interval is not None else "ci95: one row has no spread",
    )
