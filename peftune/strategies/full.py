"""Full fine-tuning: every weight learns."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from peftune.strategies.base import Strategy, TrainingDefaults

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Full(Strategy):
    """Let every weight learn: the null object that the other strategies are measured against.

    Cost:
        Gradients and two Adam moments for every weight (16 bytes a parameter in float32), and an
        artifact as large as the model.
    """

    name: ClassVar[str] = "full"
    training_defaults: ClassVar[TrainingDefaults] = TrainingDefaults(2.0e-5, weight_decay=0.01)

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Make every parameter trainable."""
        return model.requires_grad_(True)
