"""The probe `lm-loss`: how well the trunk still predicts general text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from peftune.probes.base import LanguageModel, Measurement, Probe


class LanguageModelLoss(Probe):
    """Measure bits per UTF-8 byte of general text under the tied language-model head.

    Bits per byte do not depend on the tokenizer's granularity and are comparable between models;
    lower is better.
    """

    type: ClassVar[str] = "lm-loss"
    metric: ClassVar[str] = "bits_per_byte"
    unit: ClassVar[str] = "bits/byte"

    def measure(self, model: LanguageModel, documents: Sequence[str]) -> Measurement:
        """Score every token of every document once, in bits, against the document's bytes."""
        import numpy as np

        nats, tokens = model.nats(documents)
        sizes = np.array([len(document.encode()) for document in documents], dtype=np.float64)
        return Measurement(total=nats / math.log(2), weight=sizes, tokens=tokens)
