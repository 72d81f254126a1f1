"""The probe `kl`: how far the tuned model's predictions moved from the base's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from peftune.probes.base import LanguageModel, Measurement, Probe


class KLDivergence(Probe):
    """Measure KL(base || tuned) per token of general text, over the whole vocabulary.

    Zero exactly where nothing changed, and never negative: it shows drift that the loss averages
    away, and needs no right answer. On the text of the task itself it predicts forgetting.

    References:
        Shenfeld et al. 2025, RL's Razor, arXiv:2509.04259.
    """

    name: ClassVar[str] = "kl"
    metric: ClassVar[str] = "kl_base_tuned"
    unit: ClassVar[str] = "nats/token"
    needs_base: ClassVar[bool] = True

    margin: float | None = Field(
        0.010,
        gt=0,
        allow_inf_nan=False,
        description="Divergence, in nats per token, that still counts as retained.",
    )

    def measure(self, model: LanguageModel, documents: Sequence[str]) -> Measurement:
        """Sum the divergence at every token; each token is scored once."""
        scores = model.score_text(documents)
        if scores.base is None:
            message = "the model was given without its base, so no divergence can be measured"
            raise ValueError(message)
        kl, tokens = scores.base.kl, scores.tokens
        extra = {"base_entropy": scores.base.entropy, "agreement": scores.base.agreement}
        return Measurement(kl, tokens.astype("float64"), tokens, kl=kl, extra=extra)

    def protocol(self) -> dict[str, Any]:
        """Say which way round the divergence is and what is summed."""
        return {
            "prefix": "end token",
            "windows": "overlapping",
            "direction": "KL(base || tuned), whole vocabulary",
            "aggregation": "sum over tokens / tokens",
        }

    def details(self, before: Measurement, after: Measurement) -> dict[str, float]:  # noqa: ARG002 - the base diverges from itself by nothing
        """Return the base's entropy and how often both find the same token likeliest."""
        tokens = float(after.tokens.sum())
        return {
            name: float(after.extra[name].sum()) / tokens for name in ("base_entropy", "agreement")
        }
