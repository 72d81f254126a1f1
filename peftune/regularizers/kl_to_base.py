"""The regularizer `kl-to-base`: keep predicting text as the base does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from peftune.configuration import TextSource
from peftune.regularizers.base import Penalty, Regularizer, TrainedModel

if TYPE_CHECKING:
    import torch


class KLToBase(Regularizer):
    """Add KL(base || model) per token, under the language-model head, on text beside the task.

    The task's loss never reads the language-model head, so this term constrains another read-out
    of the same backbone and need not oppose it.

    Cost:
        A forward pass of the base, and a forward and a backward pass of the model, on `sequences`
        times `length` tokens at each step. On `task` text, on the batch's own tokens.

    References:
        Li and Hoiem 2016, Learning without Forgetting, arXiv:1606.09282.
    """

    name: ClassVar[str] = "kl-to-base"

    text: Literal["task", "generated"] | TextSource = Field(
        "task",
        description="What is read: the task's own texts, what the base writes, or another text.",
    )
    sequences: int = Field(8, gt=0, description="Sequences at each step, drawn at random.")
    length: int = Field(64, ge=2, le=1024, description="Tokens of each sequence.")
    pool: int = Field(
        512, gt=0, description="Sequences that the base writes, for text: generated."
    )

    def begin(self, model: TrainedModel) -> Penalty:
        """Read the text, or let the base write it."""
        if self.text == "task":
            return _OnTask(model)
        if isinstance(self.text, TextSource):
            drawn_from = model.sequences_of(self.text, length=self.length)
        else:
            drawn_from = model.generated(self.pool, length=self.length)

        def penalty(batch: Mapping[str, torch.Tensor], draw: int) -> torch.Tensor:  # noqa: ARG001 - the task's batch is not read
            return model.divergence(model.chosen(drawn_from, self.sequences, draw=draw))

        return penalty


class _OnTask:
    """The divergence on the tokens of the task's own batch."""

    def __init__(self, model: TrainedModel) -> None:
        self.model = model

    def __call__(self, batch: Mapping[str, torch.Tensor], draw: int) -> torch.Tensor:  # noqa: ARG002 - nothing is drawn
        rows = zip(batch["input_ids"].tolist(), batch["attention_mask"].sum(-1), strict=True)
        return self.model.divergence([ids[: int(size)] for ids, size in rows])
