"""The regularizer `ewc`: stay near the base where the language depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from peftune.configuration import TextSource
from peftune.regularizers.base import Penalty, Regularizer, TrainedModel

if TYPE_CHECKING:
    import torch


class EWC(Regularizer):
    """Add half the squared change of each weight, times its Fisher information on general text.

    The information is measured once, at the base, with next tokens drawn from the base itself;
    on the task's own gradients it would protect nothing that was learned before.

    Cost:
        A forward and a backward pass of the base for each sequence before training; then a copy
        of the adapted weights in float32.

    References:
        Kirkpatrick et al. 2017, Overcoming catastrophic forgetting in neural networks,
        arXiv:1612.00796.
    """

    name: ClassVar[str] = "ewc"

    text: Literal["generated"] | TextSource = Field(
        "generated", description="What the information is measured on."
    )
    sequences: int = Field(256, gt=0, description="Sequences that it is measured on.")
    length: int = Field(128, ge=2, le=1024, description="Tokens of each sequence.")

    def begin(self, model: TrainedModel) -> Penalty:
        """Measure the information at the base."""
        model.drift()  # before the costly part: can the model tell how far it moved?
        if isinstance(self.text, TextSource):
            read = model.sequences_of(self.text, length=self.length)
            count = min(self.sequences, len(read))
            importance = model.fisher(model.chosen(read, count, draw=0))
        else:
            importance = model.fisher(model.generated(self.sequences, length=self.length))

        def penalty(batch: Mapping[str, torch.Tensor], draw: int) -> torch.Tensor:  # noqa: ARG001 - the weights alone count
            return 0.5 * model.drift(importance)

        return penalty
