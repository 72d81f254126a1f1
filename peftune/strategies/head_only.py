"""Head-only training: the backbone is frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from peftune.strategies.base import Strategy, TrainingDefaults

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class HeadOnly(Strategy):
    """Freeze the backbone and let the classification head learn.

    The baseline that many programs build by hand, and the natural zero of forgetting: a backbone
    that cannot change cannot forget.

    Cost:
        Forward passes and a gradient for the head alone; an artifact of `labels * width` numbers.
    """

    name: ClassVar[str] = "head-only"
    training_defaults: ClassVar[TrainingDefaults] = TrainingDefaults(1.0e-3)
    trains_backbone: ClassVar[bool] = False

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Freeze every parameter but the head's."""
        model.requires_grad_(False)
        model.score.requires_grad_(True)
        return model
