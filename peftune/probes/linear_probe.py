"""The probe `linear-probe`: what a linear classifier can still read in the frozen features."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic import Field, model_validator

from peftune.probes.base import LanguageModel, Measurement, Probe, above_chance

_MOST_ITERATIONS = 10_000


class LabeledText(NamedTuple):
    """A text and what it is.

    Args:
        text: what is read.
        label: what the classifier should say.
    """

    text: str
    label: str


class LinearProbe(Probe):
    """Count held-out texts of another task that a linear classifier on frozen features gets right.

    It asks whether the features are still there, whatever the output head makes of them. A text's
    hash alone decides whether it is fitted or scored, so both models are asked the same, and equal
    texts never stand on both sides. About half of the documents are scored; only they count.

    References:
        Alain and Bengio 2016, Understanding intermediate layers using linear classifier probes,
        arXiv:1610.01644. Aghajanyan et al. 2020, Better Fine-Tuning by Reducing Representational
        Collapse, arXiv:2008.03156.
    """

    plain: ClassVar[bool] = False

    name: ClassVar[str] = "linear-probe"
    metric: ClassVar[str] = "accuracy"
    unit: ClassVar[str] = "share"
    higher_is_better: ClassVar[bool] = True
    right_or_wrong: ClassVar[bool] = True

    margin: float | None = Field(
        0.01,
        gt=0,
        allow_inf_nan=False,
        description="Share of the held-out texts whose loss still counts as retained.",
    )
    label_column: str = Field(
        "label", min_length=1, description="Column that holds the label, as id or name."
    )
    C: float = Field(
        0.1,
        gt=0,
        allow_inf_nan=False,
        description="Inverse strength of the classifier's L2 penalty, as in scikit-learn: larger fits closer.",
    )

    @model_validator(mode="after")
    def _reads_two_columns(self) -> LinearProbe:
        if self.text_column == self.label_column:
            message = "'text_column' and 'label_column' name the same column"
            raise ValueError(message)
        return self

    def needed_columns(self) -> tuple[str, ...]:
        """List the two columns."""
        return (self.text_column, self.label_column)

    def document(self, row: dict[str, Any]) -> LabeledText | str:
        """Take a text with its label; a blank text is left out.

        Raises:
            ValueError: there is no label.
        """
        text, label = str(super().document(row)), row[self.label_column]
        if not text.strip():
            return ""
        if label is None or not str(label).strip():
            message = f"'{self.label_column}' holds no label"
            raise ValueError(message)
        return LabeledText(text, str(label))

    def measure(self, model: LanguageModel, documents: Sequence[LabeledText]) -> Measurement:
        """Fit on one half of the documents and score the other; the fitted half has weight 0.

        Raises:
            ValueError: a half lacks documents, or the fitted one lacks a second label.
        """
        import numpy as np
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        held = np.array([_held_out(document.text) for document in documents])
        labels = np.array([document.label for document in documents])
        known, counts = np.unique(labels[held], return_counts=True)
        if len(known) == 0 or len(set(labels[~held])) < 2:  # noqa: PLR2004 - a task of one label is none
            message = "it takes texts of two labels or more in the half that is fitted, and one in the other; give more documents"
            raise ValueError(message)
        features = model.features([document.text for document in documents]).astype(np.float64)
        classifier = make_pipeline(
            StandardScaler(), LogisticRegression(C=self.C, max_iter=_MOST_ITERATIONS)
        )
        classifier.fit(features[~held], labels[~held])
        right = held & (classifier.predict(features) == labels)
        majority = held & (labels == known[counts.argmax()])
        return Measurement(
            right.astype(np.float64),
            held.astype(np.float64),
            np.zeros(len(documents), dtype=np.int64),
            {"majority": majority.astype(np.float64)},
        )

    def protocol(self) -> dict[str, Any]:
        """Say what is read, how it is fitted, and on what it is scored."""
        return {
            "features": "mean of the last hidden states, first window",
            "classifier": "standardized features, logistic regression",
            "C": self.C,
            "held_out": "texts whose SHA-256 is odd",
            "aggregation": "right held-out documents / held-out documents",
        }

    def details(self, before: Measurement, after: Measurement) -> dict[str, float]:
        """Return the majority's share as chance, the head-room above it, and what moved beyond it."""
        chance = float(before.extra["majority"].sum() / before.weight.sum())
        return above_chance(before, after, chance=chance)


def _held_out(text: str) -> bool:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return bool(digest[-1] % 2)
