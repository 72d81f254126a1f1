"""The probe `cloze`: the last word of a text, given all of it before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from peftune.probes.base import LanguageModel, Measurement, Probe, perplexity


class Cloze(Probe):
    """Count texts whose last word the model would write itself.

    The last word is what follows the last space; it counts where each of its tokens is the
    likeliest one. In LAMBADA the word can be told from the whole text only, so the probe asks for
    long context. The details give the perplexity of the word, which moves before any answer does.

    References:
        Paperno et al. 2016, The LAMBADA dataset, arXiv:1606.06031.
    """

    plain: ClassVar[bool] = False

    name: ClassVar[str] = "cloze"
    metric: ClassVar[str] = "accuracy"
    unit: ClassVar[str] = "share"
    higher_is_better: ClassVar[bool] = True
    right_or_wrong: ClassVar[bool] = True

    margin: float | None = Field(
        0.01,
        gt=0,
        allow_inf_nan=False,
        description="Share of the texts whose loss still counts as retained.",
    )

    def document(self, row: dict[str, Any]) -> str:
        """Take a text of two words or more.

        Raises:
            ValueError: there is nothing before the last word.
        """
        text = str(super().document(row)).rstrip()
        if text and " " not in text.lstrip():
            message = f"'{self.text_column}' is a single word; the last word is read after others"
            raise ValueError(message)
        return text

    def measure(self, model: LanguageModel, documents: Sequence[str]) -> Measurement:
        """Score the last word of every document after the rest of it."""
        import numpy as np

        parts = [document.rsplit(" ", 1) for document in documents]
        scores = model.score_continuations([(before, f" {word}") for before, word in parts])
        right = scores.greedy.astype(np.float64)
        return Measurement(right, np.ones_like(right), scores.tokens, {"nats": scores.nats})

    def protocol(self) -> dict[str, Any]:
        """Say what is scored after what, and what counts as right."""
        return {
            "continuation": "last space and last word",
            "context": "all before; its end where it is longer than the window",
            "right": "every token of the continuation is the likeliest",
            "aggregation": "right documents / documents",
        }

    def details(self, before: Measurement, after: Measurement) -> dict[str, float]:
        """Return how surprising the last words are: in nats a word, and as a perplexity."""
        first = float(before.extra["nats"].sum() / before.weight.sum())
        last = float(after.extra["nats"].sum() / after.weight.sum())
        return {
            "nats_per_word_before": first,
            "nats_per_word_after": last,
            "nats_per_word_forgetting": last - first,
            "perplexity_before": perplexity(first),
            "perplexity_after": perplexity(last),
        }
