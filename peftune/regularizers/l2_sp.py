"""The regularizer `l2-sp`: stay near the weights that training began with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from peftune.regularizers.base import Penalty, Regularizer, TrainedModel

if TYPE_CHECKING:
    import torch


class L2SP(Regularizer):
    """Add half the squared distance of the backbone's weights from the base's.

    Weight decay pulls a fully tuned model to zero, which is away from its base; this pulls it
    back. Of a low-rank update the norm of the product counts, not of its factors.

    References:
        Li, Grandvalet and Davoine 2018, Explicit Inductive Bias for Transfer Learning with
        Convolutional Networks, arXiv:1802.01483.
    """

    name: ClassVar[str] = "l2-sp"

    weight: float = Field(
        0.01, ge=0, allow_inf_nan=False, description="Factor of half the squared distance."
    )
    head_weight: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="Factor of half the squared norm of the head, relative to `weight`.",
    )

    def begin(self, model: TrainedModel) -> Penalty:
        """Check that the model can tell how far it moved; where it started it knows itself."""
        model.drift()

        def penalty(batch: Mapping[str, torch.Tensor], draw: int) -> torch.Tensor:  # noqa: ARG001 - the weights alone count
            distance = 0.5 * model.drift()
            if self.head_weight:
                distance = distance + 0.5 * self.head_weight * model.head_norm()
            return distance

        return penalty
