"""PEFT's LoRA layers and bitsandbytes' int8 layers in a model, and what each LoRA adds to its weight."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import bitsandbytes as bnb
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
        and kind.__module__ in {"bitsandbytes.nn.modules", "peftune.fastpath.lora_layers"}
        and module.weight.dtype == torch.int8
    )


def keep_weights(model: nn.Module) -> None:
    """Let no pass through bitsandbytes' maps of a model change what they hold, if it has any."""
    kinds = {kind for module in model.modules() for kind in type(module).__mro__}
    if any(kind.__module__.startswith("bitsandbytes.") for kind in kinds):
        keep_int8_weights(model)


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


if TYPE_CHECKING:
    _Map = nn.Linear
else:
    _Map = object


class _KeepsBias(_Map):
    """Compute with a copy of the bias in the type of the input.

    `Linear8bitLt.forward` and `Linear4bit.forward` of bitsandbytes write the bias in the type of
    their input into the parameter (`self.bias.data = self.bias.data.to(x.dtype)`). One pass under
    autocast would round a frozen bias for good, and turn a trainable one into bfloat16.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bias, dtype = self.bias, self._computes_in(x)
        if bias is None or bias.dtype == dtype:
            return super().forward(x)
        # A stand-in, and not this module for a moment: another thread may read it.
        stand_in: Any = copy.copy(self)
        stand_in._parameters = {**self._parameters, "bias": bias.to(dtype)}  # noqa: SLF001 - nn.Module's
        found: torch.Tensor = super(_KeepsBias, stand_in).forward(x)
        return found

    def _computes_in(self, x: torch.Tensor) -> torch.dtype:
        return x.dtype


class Linear8bitLt(_KeepsBias, bnb.nn.Linear8bitLt):
    """int8 codes beside a bias that no pass changes."""


class Linear4bit(_KeepsBias, bnb.nn.Linear4bit):
    """4-bit codes beside a bias that no pass changes."""

    def _computes_in(self, x: torch.Tensor) -> torch.dtype:
        own: Any = self  # nothing says what types bitsandbytes' attributes have
        if not own.compute_type_is_set:
            own.set_compute_type(x)
            own.compute_type_is_set = True
        chosen: torch.dtype | None = own.compute_dtype
        return chosen or x.dtype


_KEEPING: tuple[tuple[type[nn.Module], type[nn.Module]], ...] = (
    (bnb.nn.Linear8bitLt, Linear8bitLt),
    (bnb.nn.Linear4bit, Linear4bit),
)


def keep_int8_weights(model: nn.Module) -> None:
    """Let no pass through bitsandbytes' maps of a model change what they hold.

    Args:
        model: with such maps, and whatever is wrapped around them; their class is changed in place.
    """
    for module in model.modules():
        kind = type(module)
        for stock, keeping in _KEEPING:
            if isinstance(module, stock) and not isinstance(module, keeping):
                # Of somebody's own class the forward that it inherits is the one to replace.
                own = {"__module__": kind.__module__}
                bases = (kind, keeping)
                module.__class__ = keeping if kind is stock else type(kind.__name__, bases, own)
        if isinstance(module, bnb.nn.Linear4bit):
            # On some processors it would lay out its codes anew at the first evaluation.
            module.support_avx512bf16_for_cpu = False
    # bitsandbytes warns at every call that it casts to float16; that is how int8 works.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
