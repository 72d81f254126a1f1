"""Full fine-tuning: every weight is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from peftune.errors import UsageError
from peftune.strategies.base import Strategy, TrainingDefaults

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Full(Strategy):
    """Train every weight: the null object that the other strategies are measured against.

    With `freeze_layers` the bottom of the backbone stays as it is, and the artifact is an adapter of
    the trained weights.

    Cost:
        Gradients and two Adam moments for every weight (16 bytes a parameter in float32), and an
        artifact as large as the model.
    """

    name: ClassVar[str] = "full"
    training_defaults: ClassVar[TrainingDefaults] = TrainingDefaults(2.0e-5, weight_decay=0.01)

    freeze_layers: int = Field(
        0,
        ge=0,
        description="Freeze the embeddings and this many blocks from the bottom: less is forgotten, and steps are faster; 0 freezes nothing.",
    )

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Make every parameter trainable, or all but the frozen ones.

        Raises:
            UsageError: the model has fewer blocks than are to be frozen.
        """
        model.requires_grad_(True)
        if self.freeze_layers:
            backbone: Any = model.base_model
            if self.freeze_layers > len(backbone.h):
                message = f"freeze_layers is {self.freeze_layers}, but the base has {len(backbone.h)} blocks."
                raise UsageError(message)
            for part in (backbone.wte, backbone.wpe, *backbone.h[: self.freeze_layers]):
                part.requires_grad_(False)
        return model
