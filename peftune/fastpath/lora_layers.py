"""Find PEFT's LoRA layers in a model, and what each adds to the weight beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from peft.tuners.lora.layer import LoraLayer
from torch import nn

from peftune.fastpath.linear import LowRank


def is_int8(module: nn.Module) -> bool:
    """Say whether a module is bitsandbytes' linear map with frozen int8 codes, or ours of it."""
    kind = type(module)
    return (
        kind.__name__ == "Linear8bitLt"
        and kind.__module__ in {"bitsandbytes.nn.modules", "peftune.fastpath.int8_layers"}
        and module.weight.dtype == torch.int8
    )


def keep_weights(model: nn.Module) -> None:
    """Let no pass through bitsandbytes' maps of a model change what they hold, if it has any."""
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    if any(kind.__module__.startswith("bitsandbytes.") for kind in kinds):
        from peftune.fastpath import int8_layers

        int8_layers.keep_weights(model)


def scale_of(module: Any) -> torch.Tensor:  # noqa: ANN401 - an int8 map
    """Return what 127 of an int8 map's codes are worth, (outputs,): no parameter holds it."""
    scale: torch.Tensor = module.state.SCB if module.weight.SCB is None else module.weight.SCB
    return scale


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    """Give the LoRA layers of a model, each with its name there."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer):
            yield name, module


def factors_of(layer: LoraLayer, adapter: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors of an adapter's update: (rank, inputs) and (outputs, rank)."""
    if adapter in layer.lora_embedding_A:
        return layer.lora_embedding_A[adapter], layer.lora_embedding_B[adapter]
    return layer.lora_A[adapter].weight, layer.lora_B[adapter].weight


def plain_lora(module: nn.Module) -> str | None:
    """Name the adapter of a LoRA layer that is nothing but `s B A` beside its weight."""
    if not isinstance(module, LoraLayer):
        return None
    base: Any = module.base_layer
    is_plain = type(module) is LoraLinear or is_int8(base)
    names = module.active_adapters
    if not is_plain or len(names) != 1 or names[0] not in module.lora_A:
        return None
    name = str(names[0])
    alone = getattr(module, "lora_variant", {}).get(name) is None
    no_bias = getattr(module.lora_B[name], "bias", None) is None
    return name if alone and no_bias else None


def is_disabled(module: Any) -> bool:  # noqa: ANN401 - perhaps a LoRA layer
    """Say whether a LoRA layer computes with its weight alone."""
    return isinstance(module, LoraLayer) and (module.disable_adapters or module.merged)


def update_of(module: Any, name: str) -> LowRank:  # noqa: ANN401 - a LoRA layer
    """Return what an adapter adds to the weight of a plain LoRA layer, as it is now."""
    dropout = module.lora_dropout[name]
    return LowRank(
        *factors_of(module, name),
        float(module.scaling[name]),
        float(dropout.p) if isinstance(dropout, nn.Dropout) else 0.0,
    )
