"""A loaded classifier: texts in, label names out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from torch import nn
from transformers import PreTrainedTokenizerBase

from peftune.artifacts.manifest import Manifest
from peftune.errors import UsageError
from peftune.models.inference import predict_logits


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the classifier says of one text.

    Args:
        label: name of the likeliest label.
        score: its probability.
        probabilities: probability by label name; they sum to 1.
    """

    label: str
    score: float
    probabilities: Mapping[str, float] = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Classifier:
    """A model with all that it takes to classify a text as it was trained to.

    Args:
        model: the sequence classifier, in eval mode.
        tokenizer: its tokenizer.
        labels: label names in the order of their ids.
        max_length: tokens kept of each text.
        manifest: what its artifact says of it.
    """

    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    labels: tuple[str, ...]
    max_length: int
    manifest: Manifest | None = field(default=None, repr=False)

    def predict(self, texts: Sequence[str], *, batch_size: int = 64) -> list[Prediction]:
        """Classify texts, in their order.

        Raises:
            UsageError: `texts` is one string instead of a list of them, or holds something else.
        """
        probabilities = softmax(
            self.logits(texts, batch_size=batch_size).astype(np.float64), axis=-1
        )
        return [
            Prediction(
                label=self.labels[int(row.argmax())],
                score=float(row.max()),
                probabilities={
                    label: float(value) for label, value in zip(self.labels, row, strict=True)
                },
            )
            for row in probabilities
        ]

    def logits(self, texts: Sequence[str], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Return raw scores, (texts, labels), float32."""
        if isinstance(texts, str):
            message = "predict takes a list of strings (got one string); for one text write predict([text])."
            raise UsageError(message)
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                message = f"predict takes a list of strings (got {type(text).__name__} at index {index})."
                raise UsageError(message)
        return predict_logits(
            self.model, self.tokenizer, texts, max_length=self.max_length, batch_size=batch_size
        )
