"""What a merge made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peftune.sharing.verification import Difference

MergedType = Literal["float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class Merged:
    """A checkpoint that was merged, and how far it is from its artifact.

    Args:
        folder: where it lies.
        dtype: type of its weights.
        lm: whether it is the tuned trunk with its language-model head, rather than the classifier.
        difference: from what the artifact makes of its recorded texts in float32; with `lm`, of
            their tokens' log-probabilities, in nats.
        allowed: largest difference that passes.
    """

    folder: Path
    dtype: MergedType
    lm: bool
    difference: Difference
    allowed: float
