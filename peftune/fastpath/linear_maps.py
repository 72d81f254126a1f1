"""A module of a block as one linear map, whatever holds its weight and whatever update is added to it."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from peftune.fastpath.dropout import DropoutMasks
from peftune.fastpath.linear import (
    GradientBuffers,
    adapted_linear,
    frozen_linear,
    trainable_linear,
)
from peftune.fastpath.lora_layers import is_disabled, is_int8, plain_lora, scale_of, update_of
from peftune.fastpath.mapped_memory import release_mapped
from peftune.fastpath.products import (
    Int8,
    Packed,
    Plain,
    Product,
    has_onednn,
    lays_out,
    mkl_is_fast,
)

_WORTH_PACKING = 48
"""Tokens of a batch from which frozen weights are laid out anew."""

_MKL_IS_AS_FAST = 400
"""Tokens of a batch from which an Intel takes float32 weights as fast as they lie."""


@dataclass(frozen=True, slots=True)
class Computing:
    """How products are computed.

    Args:
        dtype: float32 or bfloat16.
        device: where.
        pack: lay frozen float weights out anew for a CPU, which takes a copy for each direction.
        pack_codes: lay int8 weights out as floats for the way back, which takes a copy.
        tokens: rows that a product will mostly have.
        buffers: where gradients of weights are written; None takes new memory for each.
    """

    dtype: torch.dtype
    device: torch.device
    pack: bool = False
    pack_codes: bool = False
    tokens: int = 512
    buffers: GradientBuffers | None = None

    @classmethod
    def of(cls, blocks: nn.ModuleList, *, bf16: bool, tokens: float) -> Computing:
        """Decide for a training.

        Frozen weights are packed where batches are of a size that gains from it, and where the
        copies take less than an eighth of the memory that is free.

        Args:
            blocks: those of the backbone.
            bf16: compute in bfloat16.
            tokens: of a batch, in the mean.
        """
        dtype = torch.bfloat16 if bf16 else torch.float32
        copies = 2 * dtype.itemsize * sum(w.numel() for w in blocks.parameters())
        device = next(blocks.parameters()).device
        may_pack = (
            device.type == "cpu"
            and has_onednn()
            and lays_out(dtype)
            and tokens >= _WORTH_PACKING
            and copies < psutil.virtual_memory().available / 8
        )
        as_it_lies = tokens >= _MKL_IS_AS_FAST and dtype == torch.float32 and mkl_is_fast()
        pack = may_pack and not as_it_lies
        return cls(dtype, device, pack=pack, pack_codes=may_pack, tokens=round(tokens))

    def copies(self, weight: torch.Tensor) -> bool:
        """Say whether a frozen weight is computed with from a copy, and is not read itself."""
        return weight.is_floating_point() and (self.pack or weight.dtype != self.dtype)


class InType:
    """A small weight in the type that is computed in: made once if it is frozen, each time if it is trainable.

    Args:
        weight: of any shape.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self._weight = weight
        self._made: torch.Tensor | None = None

    def __call__(self, dtype: torch.dtype) -> torch.Tensor:
        """Return the weight as it is now, in a type."""
        if self._weight.requires_grad:
            return self._weight.to(dtype)
        if self._made is None or self._made.dtype != dtype:
            with torch.inference_mode(mode=False):
                self._made = self._weight.detach().to(dtype)
        return self._made


class LinearMap:
    """What a linear module of a block computes.

    A module that is not known, such as a plug-in's, is called as it is.

    Args:
        module: `Conv1D`, `nn.Linear`, bitsandbytes' `Linear8bitLt`, one of these inside a LoRA
            layer of PEFT, or any other.
        computing: how products are computed.
    """

    def __init__(self, module: nn.Module, computing: Computing) -> None:
        self._module = module
        self._computing = computing
        self._adapter = plain_lora(module)
        base: Any = module.base_layer if self._adapter is not None else module
        self._base = base
        self._known = _is_known(base) and not (self._adapter and _is_trainable(base))
        self._product: Product | None = None
        self._bias = InType(base.bias) if self._known and base.bias is not None else None

    def __call__(self, x: torch.Tensor, masks: DropoutMasks | None) -> torch.Tensor:
        """Map (tokens, inputs) to (tokens, outputs).

        Args:
            x: in the type that is computed in.
            masks: of this pass; None drops nothing.
        """
        if not self._known or is_disabled(self._module):
            with torch.autocast(x.device.type, torch.bfloat16, enabled=x.dtype == torch.bfloat16):
                found: torch.Tensor = self._module(x).to(x.dtype)
            return found
        bias = self._base.bias
        if self._bias is not None and not bias.requires_grad:
            bias = self._bias(x.dtype)
        if self._adapter is not None:
            update = update_of(self._module, self._adapter)
            return adapted_linear(x, self._frozen(), update, bias=bias, masks=masks)
        if _is_trainable(self._base):
            weight = _oriented(self._base)
            product = Plain(weight.detach().to(self._computing.dtype))
            buffers = self._computing.buffers
            buffer = None if buffers is None else buffers.of(weight)
            return trainable_linear(x, weight, product, bias=bias, buffer=buffer)
        return frozen_linear(x, self._frozen(), bias)

    def _frozen(self) -> Product:
        """Prepare a weight that does not change at its first use."""
        if self._product is None:
            self._product = _product(self._base, self._computing)
        return self._product


def _is_known(base: nn.Module) -> bool:
    return type(base) in {Conv1D, nn.Linear} or is_int8(base)


def _is_trainable(base: Any) -> bool:  # noqa: ANN401 - a module with a weight
    return bool(base.weight.requires_grad)


def _oriented(base: Any) -> torch.Tensor:  # noqa: ANN401 - a module with a weight
    """Return a float weight as (inputs, outputs)."""
    weight: torch.Tensor = base.weight
    return weight if isinstance(base, Conv1D) else weight.t()


def _product(base: Any, computing: Computing) -> Product:  # noqa: ANN401 - a module with a weight
    tokens = computing.tokens
    if is_int8(base):
        codes = functools.partial(_codes, base, computing)
        way_back = Packed(codes, tokens=tokens) if computing.pack_codes else None
        return Int8(base.weight.data, scale_of(base).float() / 127.0, way_back)
    values = functools.partial(_values, base, computing)
    if computing.pack:
        return Packed(values, tokens=tokens)
    with values() as weight:
        return Plain(weight)


@contextlib.contextmanager
def _values(base: Any, computing: Computing) -> Iterator[torch.Tensor]:  # noqa: ANN401 - a module with a weight
    """Read a float weight; where it is computed with from a copy, its own memory is given back."""
    yield _oriented(base).detach().to(computing.dtype)
    if computing.copies(base.weight):
        release_mapped([base.weight])


@contextlib.contextmanager
def _codes(base: Any, computing: Computing) -> Iterator[torch.Tensor]:  # noqa: ANN401 - a module with a weight
    """Read int8 codes as floats, (inputs, outputs)."""
    yield base.weight.data.to(computing.dtype).t()
