"""The regularizer `replay`: go on learning the language beside the task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from peftune.configuration import TextSource
from peftune.regularizers.base import Penalty, Regularizer, TrainedModel

if TYPE_CHECKING:
    import torch


class Replay(Regularizer):
    """Add the language-model loss of general text, in nats per token, at a share of the tokens.

    With a small `fraction` only some steps replay a sequence; the term is zero at the others.

    Cost:
        A forward and a backward pass on the replayed tokens.

    References:
        Bethune et al. 2025, Scaling Laws for Forgetting during Finetuning, arXiv:2502.06042 (1%
        of pre-training data). Generated text: arXiv:2605.26097.
    """

    name: ClassVar[str] = "replay"

    text: Literal["generated"] | TextSource = Field(
        "generated", description="What is replayed: what the base writes, or another text."
    )
    fraction: float = Field(
        0.25, gt=0, lt=1, description="Share of replayed tokens among all tokens of training."
    )
    length: int = Field(64, ge=2, le=1024, description="Tokens of each sequence.")
    pool: int = Field(
        512, gt=0, description="Sequences that the base writes, for text: generated."
    )

    def begin(self, model: TrainedModel) -> Penalty:
        """Read the text, or let the base write it."""
        if isinstance(self.text, TextSource):
            drawn_from = model.sequences_of(self.text, length=self.length)
        else:
            drawn_from = model.generated(self.pool, length=self.length)
        odds = self.fraction / (1 - self.fraction)
        per_step = odds * model.task_tokens() / self.length

        def penalty(batch: Mapping[str, torch.Tensor], draw: int) -> torch.Tensor | None:  # noqa: ARG001 - the task's batch is not read
            count = math.floor((draw + 1) * per_step) - math.floor(draw * per_step)
            if count == 0:
                return None
            return model.language_loss(model.chosen(drawn_from, count, draw=draw))

        return penalty
