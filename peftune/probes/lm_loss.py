"""The probe `lm-loss`: how well the backbone still predicts general text."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field

from peftune.probes.base import LanguageModel, Measurement, Probe, perplexity


class LanguageModelLoss(Probe):
    """Measure bits per UTF-8 byte of general text under the tied language-model head.

    Bits per byte do not depend on the tokenizer's granularity and are comparable between models;
    lower is better. The details give nats per token, perplexity ratios per token and per word,
    and what the tuned model shares with the base: entropy, divergence, agreement.

    References:
        Gao et al. 2020, The Pile, arXiv:2101.00027 (bits per byte). Kalajdzievski 2024, Scaling
        Laws for Forgetting, arXiv:2401.05605 (cross-entropy with the base's predictions).
    """

    name: ClassVar[str] = "lm-loss"
    metric: ClassVar[str] = "bits_per_byte"
    unit: ClassVar[str] = "bits/byte"

    margin: float | None = Field(
        0.010,
        gt=0,
        allow_inf_nan=False,
        description="Bits per byte that still count as retained; about 1% of GPT-2's on WikiText.",
    )
    windows: Literal["overlapping", "disjoint"] = Field(
        "overlapping",
        description="How a long document is read: each window overlaps the last by half, or follows it as in lm-evaluation-harness.",
    )

    def measure(self, model: LanguageModel, documents: Sequence[str]) -> Measurement:
        """Score every token of every document once, in bits, against the document's bytes."""
        import numpy as np

        scores = model.score_text(documents, disjoint_windows=self.windows == "disjoint")
        bits = math.log(2)
        words = [len(re.split(r"\s+", document)) for document in documents]
        extra = {"words": np.array(words, dtype=np.float64)}
        sizes = np.array([len(document.encode()) for document in documents], dtype=np.float64)
        measured = Measurement(scores.nats / bits, sizes, scores.tokens, extra=extra)
        base = scores.base
        if base is None:
            return measured
        return dataclasses.replace(
            measured,
            kl=base.kl,
            adapter_disabled=base.nats / bits,
            base_head=None if base.head_nats is None else base.head_nats / bits,
            extra={**extra, "base_entropy": base.entropy, "agreement": base.agreement},
        )

    def protocol(self) -> dict[str, Any]:
        """Say how documents are cut and what is summed."""
        return {
            "prefix": "end token",
            "windows": self.windows,
            "aggregation": "sum over tokens / sum over bytes",
        }

    def details(self, before: Measurement, after: Measurement) -> dict[str, float]:
        """Return the same change in the field's other units."""
        tokens = float(before.tokens.sum())
        words = float(before.extra["words"].sum())
        nats_before = float(before.total.sum()) * math.log(2)
        nats_after = float(after.total.sum()) * math.log(2)
        change = (nats_after - nats_before) / tokens
        details = {
            "nats_per_token_before": nats_before / tokens,
            "nats_per_token_after": nats_after / tokens,
            "nats_per_token_forgetting": change,
            "perplexity_ratio": perplexity(change),
            "word_perplexity_before": perplexity(nats_before / words),
            "word_perplexity_after": perplexity(nats_after / words),
        }
        for name in ("base_entropy", "agreement"):
            if name in after.extra:
                details[name] = float(after.extra[name].sum()) / tokens
        return details
