"""What a model predicts for one text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
