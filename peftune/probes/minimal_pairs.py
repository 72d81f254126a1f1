"""The probe `minimal-pairs`: of two sentences, the grammatical one should be likelier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

from pydantic import Field

from peftune.probes.base import LanguageModel, Measurement, Probe, above_chance


class MinimalPair(NamedTuple):
    """Two sentences that differ in what makes one of them wrong.

    Args:
        good: the grammatical one.
        bad: the other.
    """

    good: str
    bad: str


class MinimalPairs(Probe):
    """Count pairs of which the model finds the grammatical sentence likelier.

    Likelihoods are of whole sentences, so both should be about as long. A guess is right half of
    the time: the details say how far above it the base is.

    References:
        Warstadt et al. 2020, BLiMP, arXiv:1912.00582.
    """

    columns: ClassVar[tuple[str, ...]] = ("sentence_good", "sentence_bad")
    plain: ClassVar[bool] = False

    name: ClassVar[str] = "minimal-pairs"
    metric: ClassVar[str] = "accuracy"
    unit: ClassVar[str] = "share"
    higher_is_better: ClassVar[bool] = True
    right_or_wrong: ClassVar[bool] = True

    margin: float | None = Field(
        0.01,
        gt=0,
        allow_inf_nan=False,
        description="Share of the pairs whose loss still counts as retained.",
    )
    leading_space: bool = Field(
        True,
        description="Read each sentence after a space, as in lm-evaluation-harness; false reads it as it stands.",
    )

    def document(self, row: dict[str, Any]) -> MinimalPair:
        """Take the two sentences of a row.

        Raises:
            ValueError: one is not a text or is blank, or they are the same.
        """
        for name in self.columns:
            if not isinstance(row[name], str) or not row[name].strip():
                message = f"'{name}' must be a sentence"
                raise ValueError(message)
        pair = MinimalPair(*(row[name] for name in self.columns))
        if pair.good == pair.bad:
            message = "'sentence_good' and 'sentence_bad' are the same"
            raise ValueError(message)
        return pair

    def measure(self, model: LanguageModel, documents: Sequence[MinimalPair]) -> Measurement:
        """Compare the log-likelihoods of the two sentences of every pair."""
        import numpy as np

        space = " " if self.leading_space else ""
        scores = model.score_continuations(
            [("", f"{space}{sentence}") for pair in documents for sentence in pair]
        )
        nats = scores.nats.reshape(-1, 2)  # (pairs, good and bad)
        right = (nats[:, 0] < nats[:, 1]).astype(np.float64)
        return Measurement(right, np.ones_like(right), scores.tokens.reshape(-1, 2).sum(axis=1))

    def protocol(self) -> dict[str, Any]:
        """Say what of a sentence is scored, and what counts as right."""
        return {
            "prefix": "end token",
            "leading_space": self.leading_space,
            "right": "sum of log-likelihoods: good > bad",
            "aggregation": "right documents / documents",
        }

    def details(self, before: Measurement, after: Measurement) -> dict[str, float]:
        """Return chance, the base's head-room above it, and what was lost and gained beyond luck."""
        return above_chance(before, after, chance=0.5)
