"""BitFit for peftune: train only the bias terms and the classification head."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from peftune.strategies import Strategy, TrainingDefaults

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class BitFit(Strategy):
    """Freeze every weight but the bias terms and the classification head.

    Cost:
        About a thousandth of the parameters are trainable. Nothing is added to the model, so it
        runs as fast as before. The artifact holds the biases and the head.

    References:
        Ben Zaken et al. 2021, BitFit: Simple Parameter-efficient Fine-tuning for
        Transformer-based Masked Language-models, arXiv:2106.10199.
    """

    name: ClassVar[str] = "bitfit"
    training_defaults: ClassVar[TrainingDefaults] = TrainingDefaults(1.0e-3)

    layer_norms: bool = Field(
        True, description="Train the biases of layer norms too: a sixth of all biases."
    )

    def prepare(self, model: PreTrainedModel) -> nn.Module:
        """Freeze the model except the biases and the head."""
        from torch import nn

        model.requires_grad_(False)
        for module in model.modules():
            bias = getattr(module, "bias", None)
            if isinstance(bias, nn.Parameter):
                bias.requires_grad_(self.layer_norms or not isinstance(module, nn.LayerNorm))
        model.score.requires_grad_(True)
        return model
