"""The model as it was before training, and every strength between before and after."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping

import torch
from peft import PeftModel
from peft.helpers import rescale_adapter_scale
from peft.tuners.lora import LoraLayer
from torch import nn

from peftune.models.parts import trainable_parameters

_FACTORS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B")
"""The attributes of a `LoraLayer` that hold the two factors of its update."""


def frozen_sha256(model: nn.Module, before: Mapping[str, torch.Tensor]) -> str:
    """Hash the weights that do not learn: what the reference rests on.

    Args:
        model: a prepared model.
        before: the weights that learn, from `snapshot`; they are left out.
    """
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        if name not in before:
            values = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
            digest.update(values.numpy().data)
    return digest.hexdigest()


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copy the weights that learn, as they are now.

    Returns:
        A copy of each trainable weight by name, on the weight's device.
    """
    return {name: weight.detach().clone() for name, weight in trainable_parameters(model).items()}


@contextlib.contextmanager
def at_strength(
    model: nn.Module, before: Mapping[str, torch.Tensor], strength: float
) -> Iterator[None]:
    """Let the model act between before (0) and now (1) inside the context.

    Weights that learn directly are interpolated; a low-rank update is scaled, which is the same
    interpolation of the weights that it adapts. At 0 and 1 the model is exactly the one before
    and the one now. The weights come back on exit.

    Args:
        model: a prepared model.
        before: the weights at the start, from `snapshot`.
        strength: 0 to 1.

    References:
        Wortsman et al. 2021, Robust fine-tuning of zero-shot models, arXiv:2109.01903.
    """
    if strength == 1:
        yield
        return
    weights = trainable_parameters(model)
    scaled = set() if strength == 0 else _update_names(model)
    kept = {name: weights[name].data for name in before if name not in scaled}
    scaling = rescale_adapter_scale(model, strength) if scaled else contextlib.nullcontext()
    with scaling:
        try:
            for name, now in kept.items():
                weights[name].data = (
                    before[name] if strength == 0 else torch.lerp(before[name], now, strength)
                )
            yield
        finally:
            for name, now in kept.items():
                weights[name].data = now


def _update_names(model: nn.Module) -> set[str]:
    """Name the factors of low-rank updates, which peft scales as one.

    Everything else that learns is interpolated: the head, DoRA's magnitudes, other adapters.
    """
    if not isinstance(model, PeftModel):
        return set()
    return {
        f"{prefix}.{factor}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, LoraLayer)
        for factor in _FACTORS
        for name, weight in getattr(module, factor).named_parameters()
        if weight.requires_grad
    }
