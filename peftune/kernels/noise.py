"""Dropout whose random numbers cost an eighth of torch's on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.autograd import Function

_STEPS = 1 << 16
"""A probability is rounded to this part: by at most 0.0008%."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What dropout leaves.

    Args:
        mask: 1 where a value stays, 0 where it is dropped, uint8.
        scale: by how much what stays is scaled up, so that the mean stays as it was.
    """

    mask: torch.Tensor
    scale: float


class Noise:
    """What one forward pass drops.

    Torch draws each decision of dropout on a CPU from one slow stream, which takes longer than the
    products of a small batch. Here torch's random state gives a seed for each pass, so that a
    resumed training goes on as it would have, and numpy's SFC64 gives 16 bits for each decision.

    Args:
        device: where the masks are needed.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._bits: np.random.SFC64 | None = None

    def kept(self, shape: Sequence[int], probability: float) -> Kept:
        """Draw which values stay.

        Args:
            shape: of the values.
            probability: share of them that is dropped.
        """
        if self._device.type != "cpu":
            mask = torch.empty(tuple(shape), dtype=torch.uint8, device=self._device)
            return Kept(mask.bernoulli_(1.0 - probability), 1.0 / (1.0 - probability))
        if self._bits is None:
            self._bits = np.random.SFC64(int(torch.randint(2**62, ()).item()))
        count, dropped = math.prod(shape), round(probability * _STEPS)
        words = torch.from_numpy(self._bits.random_raw(-(-count // 4)).view(np.int16))[:count]
        mask = (words >= dropped - _STEPS // 2).view(torch.uint8).view(tuple(shape))
        return Kept(mask, _STEPS / (_STEPS - dropped))


class _DroppedSum(Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch's context
        stream: torch.Tensor,
        update: torch.Tensor,
        kept: Kept,
    ) -> torch.Tensor:
        ctx.save_for_backward(kept.mask)
        ctx.scale, ctx.dtype = kept.scale, update.dtype
        return torch.add(stream, update * kept.mask, alpha=kept.scale)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:  # noqa: ANN401 - as torch's
        (mask,) = ctx.saved_tensors
        return gradient, (gradient.to(ctx.dtype) * mask).mul_(ctx.scale), None


def dropped_sum(
    stream: torch.Tensor, update: torch.Tensor, noise: Noise | None, probability: float
) -> torch.Tensor:
    """Return `stream + dropout(update)`, of one shape, in the stream's type.

    Args:
        stream: what is added to.
        update: what is dropped from.
        noise: of this pass; None drops nothing.
        probability: share of the update that is dropped.
    """
    if noise is None or probability == 0:
        return stream + update
    found: torch.Tensor = _DroppedSum.apply(stream, update, noise.kept(update.shape, probability))
    return found
