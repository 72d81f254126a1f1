"""In which type a training computes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from torch import nn

from peftune.kernels.processor import multiplies_bfloat16
from peftune.models.parts import trunk_of

_WORTH = 64_000_000
"""Weights of a trunk from which bfloat16 is chosen on a CPU: a smaller one gains little."""

_WRAPPERS = ("forward", "_original_forward")
"""Attributes by which accelerate wraps a model."""


def uses_bfloat16(setting: bool | Literal["auto"], model: nn.Module) -> bool:
    """Say whether a model is to be trained in bfloat16.

    Args:
        setting: `bf16` of a recipe. `auto` chooses it on a GPU that has it, and on a CPU that
            multiplies bfloat16 for a trunk of at least 64 million weights.
        model: a prepared model.
    """
    if setting != "auto":
        return setting
    trunk = trunk_of(model)
    if trunk.wte.weight.device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return multiplies_bfloat16() and sum(w.numel() for w in trunk.parameters()) >= _WORTH


@contextlib.contextmanager
def forward_restored(model: nn.Module) -> Iterator[None]:
    """Take Trainer's autocast off a model afterwards.

    Accelerate puts it around the model's forward and leaves it there: every later score would be
    computed in bfloat16 too, and bitsandbytes would round the biases of an int8 base for good.

    Args:
        model: that Trainer trains inside.
    """
    own = vars(model)
    kept = {name: own[name] for name in _WRAPPERS if name in own}
    try:
        yield
    finally:
        for name in _WRAPPERS:
            own.pop(name, None)
        own.update(kept)
